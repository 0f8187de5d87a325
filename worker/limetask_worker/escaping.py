"""Makes text that strangers may have written safe to show: it cannot begin a line, or steer a terminal."""

from __future__ import annotations

import re

# Control characters, marks and overrides of direction, line and paragraph separators, the byte order mark.
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
_INDENTATION = "    "


def escaped(text: str) -> str:
    r"""Return a text as one line: a newline is the two characters `\n`, and so on."""
    return text if text.isprintable() else _UNSAFE.sub(_shown, text)


def escaped_json(encoded: str) -> str:
    """Return JSON with the same meaning, in which nothing stands for itself that some reader takes for a new line."""
    return encoded if encoded.isprintable() else _UNSAFE.sub(_shown_in_json, encoded)


def indented(text: str) -> str:
    """Return a text of several lines, a traceback, with each of them escaped, and too far right to be a line itself."""
    return "\n".join(f"{_INDENTATION}{escaped(line)}" for line in text.split("\n"))


def _shown(unsafe: re.Match[str]) -> str:
    return unsafe[0].encode("unicode_escape").decode()


def _shown_in_json(unsafe: re.Match[str]) -> str:
    return f"\\u{ord(unsafe[0]):04x}"
