"""`limetask doctor`: whether everything is there and works together."""

from __future__ import annotations

import shutil
import sys
import textwrap
from dataclasses import asdict

import click

from limetask.cli.output import json_option, print_json, printable
from limetask.doctor import Finding, examine
from limetask.settings import current_settings

_INDENT = " " * 6
_NARROWEST = 40


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check broker, permissions, queues, workers, store, clocks and recorder, and say what to do.

    \b
    Example:
      limetask doctor

    It looks from where it runs: run it where tasks are sent and where they are run. A note is what could not be looked
    at from here. The exit code is 1 if anything is amiss.
    """
    findings = []
    for finding in examine(current_settings()):
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        print_json([asdict(finding) | {"is_well": finding.is_well} for finding in findings])
    if not all(finding.is_well for finding in findings):
        raise click.exceptions.Exit(1)


def _show(finding: Finding) -> None:
    word, colour = _mark(finding)
    _write(f"{word:<{len(_INDENT)}}", f"{finding.check}: {printable(finding.text)}", colour)
    if finding.remedy:
        _write(_INDENT, f"-> {printable(finding.remedy)}")


def _mark(finding: Finding) -> tuple[str, str]:
    if not finding.is_well:
        return "amiss", "red"
    return ("ok", "green") if finding.is_checked else ("note", "yellow")


def _write(first: str, text: str, colour: str | None = None) -> None:
    """Write a text beside what begins its first line, in a terminal broken between words."""
    lines = text.splitlines()
    if sys.stdout.isatty():
        width = max(_NARROWEST, shutil.get_terminal_size().columns) - len(_INDENT)
        broken = (textwrap.wrap(line, width, break_long_words=False, break_on_hyphens=False) for line in lines)
        lines = [part for parts in broken for part in parts]
    click.echo(click.style(first, fg=colour) + f"\n{_INDENT}".join(lines))
