"""What the command writes of texts that strangers may have written."""

from __future__ import annotations

import json

import click
import pytest
from click.testing import CliRunner

from limetask.cli.command import limetask
from limetask.cli.output import print_json
from limetask.errors import UsageError

# An escape sequence, the same of one character, an override of direction, a line separator, and a tag.
STRANGE = "a\x1b[2J\x9b31m\u202e\u2028\U000e0041\nforged ä ✓"


def test_json_means_what_it_did_and_steers_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Programs read the same text; whoever looks at it in a terminal sees what is in it."""
    print_json({"message": STRANGE})
    written = capsys.readouterr().out
    assert json.loads(written) == {"message": STRANGE}
    assert "ä ✓" in written
    assert all(line.isprintable() for line in written.split("\n"))


def test_an_error_steers_no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an error quotes is shown escaped."""

    @click.command()
    def fail() -> None:
        raise UsageError(STRANGE)

    monkeypatch.setitem(limetask.commands, "fail", fail)
    written = CliRunner().invoke(limetask, ["fail"]).output
    assert written.startswith("Error: a")
    assert all(line.isprintable() for line in written.split("\n"))
