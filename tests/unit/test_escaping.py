"""Text of strangers in logs: it begins no line, and steers no terminal."""

from __future__ import annotations

import json
import unicodedata

import pytest

from limetask_worker.escaping import escaped, escaped_json, indented

# Whatever some reader takes for the end of a line, or a terminal for a command.
UNSAFE = [
    character
    for character in map(chr, range(0x10000))
    if len(f"a{character}b".splitlines()) > 1
    or unicodedata.category(character) == "Cc"
    or unicodedata.bidirectional(character) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
]


def test_every_unsafe_character_is_escaped() -> None:
    """Control characters, ends of lines and overrides of direction are shown, and not obeyed."""
    for character in UNSAFE:
        shown = escaped(f"a{character}b")
        assert character not in shown
        assert shown.startswith("a\\")
        assert len(shown.splitlines()) == 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [("a\nb", r"a\nb"), ("\x1b[2K", r"\x1b[2K"), ("\u2028", r"\u2028"), ("\u202e", r"\u202e"), ("\r\n", r"\r\n")],
)
def test_it_is_shown_as_python_writes_it(text: str, shown: str) -> None:
    """What is escaped looks as it does in a Python string."""
    assert escaped(text) == shown


@pytest.mark.parametrize("text", ["", "Ärger mit 日本語 ☹", "C:\\new\\table", "a\u00a0b", "👩\u200d🔬", "e\u0301"])
def test_other_text_stays_as_it_is(text: str) -> None:
    """Letters of all languages, signs and backslashes are not touched."""
    assert escaped(text) == text


def test_json_keeps_its_meaning_on_one_line() -> None:
    """Escaped JSON is one line, of printable characters, and means what it did."""
    value = {"message": "".join(UNSAFE)}
    encoded = escaped_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(encoded) == value
    assert len(encoded.splitlines()) == 1
    assert not set(UNSAFE) & set(encoded)


def test_a_traceback_keeps_its_lines() -> None:
    """A text of several lines keeps them, further to the right, and each of them is escaped."""
    assert indented("Traceback:\n  File\nError: a\x1bb\rc") == "    Traceback:\n      File\n    Error: a\\x1bb\\rc"
