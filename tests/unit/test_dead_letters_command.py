"""The command `limetask`: what it tells and what it refuses, before it needs a broker."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from importlib.metadata import version

import orjson
import pytest
from click.testing import CliRunner, Result

from limetask.cli.command import limetask
from limetask.cli.output import age, json_value, printable

UNREACHABLE = {"LIMETASK_BROKER_URL": "amqp://127.0.0.1:1", "LIMETASK_CONNECT_TIMEOUT": "0.3"}


def invoke(*arguments: str, **environment: str) -> Result:
    return CliRunner().invoke(limetask, arguments, env=environment)


@pytest.mark.parametrize(
    ("command", "parts"),
    [
        ([], ["limetask dead list", "LIMETASK_BROKER_URL", "--version", "dead", "status"]),
        (["dead"], ["limetask dead show", "list", "show", "retry", "purge"]),
        (["dead", "list"], ["limetask dead list --task", "--app", "--reason", "--older-than", "--limit", "--json"]),
        (["dead", "show"], ["limetask dead show 3f9c", "--json"]),
        (["dead", "retry"], ["limetask dead retry 3f9c", "--all", "--yes", "--newer-than", "--json"]),
        (["dead", "purge"], ["limetask dead purge 3f9c", "--all", "--yes", "--newer-than", "--json"]),
        (["status"], ["limetask status 0198", "APP", "--json"]),
    ],
    ids=str,
)
def test_help_teaches(command: list[str], parts: list[str]) -> None:
    """Each help has an example and every option."""
    result = invoke(*command, "--help")
    assert result.exit_code == 0
    assert [part for part in parts if part not in result.output] == []


def test_version_is_the_distributions() -> None:
    """The version is that of the installed limetask."""
    assert invoke("--version").output == f"limetask, version {version('limetask')}\n"


@pytest.mark.parametrize("verb", ["retry", "purge"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "which ones? Give IDs, a filter such as --task, or --all"),
        (["--limit", "3"], "which ones?"),
        (["--yes"], "which ones?"),
        (["--all", "--task", "a.b"], "--all means every dead letter"),
        (["abc", "--all"], "give either IDs, or a filter, or --all"),
        (["abc", "--app", "acme"], "give either IDs, or a filter, or --all"),
        (["abc", "--limit", "1"], "give either IDs, or a filter, or --all"),
        (["--older-than", "soon"], "'soon' is no time span such as 90s, 30m, 12h, 2d or 1w"),
        (["--older-than", "9" * 400 + "w"], "is too long"),
        (["--limit", "0"], "0 is not in the range"),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, list) else None,
)
def test_letters_are_chosen_in_one_way(verb: str, options: list[str], message: str) -> None:
    """Nothing is done without ids, a filter or --all, nor with two of them."""
    result = invoke("dead", verb, *options)
    assert result.exit_code == 2
    assert message in result.output


@pytest.mark.parametrize(
    "command",
    [["dead", "list"], ["dead", "show", "x"], ["dead", "retry", "--all"], ["dead", "purge", "x", "--json"]],
    ids=str,
)
def test_an_error_is_told_without_a_traceback(command: list[str]) -> None:
    """An unreachable broker is `Error: ...` on standard error, exit code 1, and nothing on standard output."""
    result = invoke(*command, **UNREACHABLE)
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: no RabbitMQ at 127.0.0.1:1")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_libraries_it_says_what_to_install(missing: str) -> None:
    """Installed without the extra, the command names it."""
    program = f"import sys; sys.modules['{missing}'] = None; from limetask.cli import main; main()"
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"Error: the limetask command needs {missing}")
    assert ran.stderr.endswith(': pip install "limetask[cli]"\n')


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    """A message's texts cannot colour, move or clear anything."""
    assert printable("\x1b[2Jred\rx\nnext \u202e\ud800") == "\\x1b[2Jred\\rx\nnext \\u202e\\ud800"
    assert printable("[bold]å[/]") == "[bold]å[/]"
    assert (printable(""), printable(None)) == ("-", "-")


def test_any_arguments_can_be_written_as_json() -> None:
    """Sets, bytes, times, keys that are no text, deep and large values: all end in one JSON document."""
    deep: list[object] = []
    for _ in range(400):
        deep = [deep]
    value = {(1, 2): {3}, b"k": b"\xff", "day": datetime(2026, 1, 2, tzinfo=UTC), "n": 2**70, "s": "\ud800", "d": deep}
    written = orjson.loads(orjson.dumps(json_value(value), default=str))
    assert (written["(1, 2)"], written["k"], written["n"]) == ([3], "\\xff", str(2**70))
    assert written["day"] == "2026-01-02T00:00:00+00:00"


@pytest.mark.parametrize(
    ("seconds", "shown"), [(-5, "0 s"), (59, "59 s"), (61, "1 min"), (7300, "2 h"), (3 * 86_400 + 5, "3 d")]
)
def test_an_age_is_told_in_its_largest_unit(seconds: int, shown: str) -> None:
    """Ages are short, and a clock that is ahead makes none negative."""
    assert age(datetime.now(UTC) - timedelta(seconds=seconds)) == shown
    assert age(None) is None
