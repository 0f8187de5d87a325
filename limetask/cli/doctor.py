"""`limetask doctor`: whether everything is there and works together."""

from __future__ import annotations

from dataclasses import asdict

import click

from limetask.cli.output import json_option, print_json, printable
from limetask.doctor import Finding, examine
from limetask.settings import current_settings


@click.command()
@json_option
def doctor(as_json: bool) -> None:
    """Check broker, queues, workers, recorder and store, and say what to do where something is amiss.

    \b
    Example:
      limetask doctor

    It looks from where it runs: run it where tasks are sent and where they are run. The exit code is 1 if anything is
    amiss.
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
    mark = click.style("ok", fg="green") if finding.is_well else click.style("amiss", fg="red")
    click.echo(f"{mark:<6} {finding.check}: {printable(finding.text)}")
    if finding.remedy:
        click.echo(f"       -> {finding.remedy}")
