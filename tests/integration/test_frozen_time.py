"""Users' tests that freeze time: what limetask promises to do in some seconds needs a clock that goes on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from tests.programs import output_of

FROZEN = """
    import asyncio, limetask
    from freezegun import freeze_time
    from limetask import aio

    def use():
        status = limetask.send_task("a.task", "acme")
        print(status.sent_at.year, limetask.get_status(status.id, "acme").status)
        status.wait(0.1)

    async def use_aio():
        status = await aio.send_task("a.task", "acme")
        print(status.sent_at.year, (await aio.get_status(status.id, "acme")).status)
        try:
            await aio.wait(status, 0.1)
        finally:
            await aio.close()

    with freeze_time("2031-05-17", {options}):
        try:
            {use}
        except limetask.LimetaskError as exc:
            print(type(exc).__name__, exc)
"""


@pytest.mark.parametrize(
    ("use", "options"),
    [
        ("use()", ""),
        ("use()", "tick=True"),
        ("asyncio.run(use_aio())", "real_asyncio=True"),
        ("asyncio.run(use_aio())", "tick=True"),
    ],
)
def test_tasks_are_sent_and_waited_for_while_time_stands_still(
    settings: Settings, tmp_path: Path, use: str, options: str
) -> None:
    """The task has the frozen time, and the wait ends in real time."""
    lines = output_of(settings, FROZEN.format(use=use, options=options), tmp_path).splitlines()
    assert lines[0] == "2031 PENDING"
    assert lines[1].startswith("WaitTimeoutError")


def test_an_absent_broker_is_an_error_while_time_stands_still(settings: Settings, tmp_path: Path) -> None:
    """The deadline of a send comes in real time."""
    absent = replace(settings, broker_url="amqp://127.0.0.1:1/", send_timeout=1.0)
    output = output_of(absent, FROZEN.format(use="use()", options=""), tmp_path)
    assert "BrokerUnreachableError no RabbitMQ at 127.0.0.1:1" in output


def test_aio_needs_a_loop_whose_clock_goes_on(settings: Settings, tmp_path: Path) -> None:
    """Its deadlines are the loop's: a loop that is frozen is told, with the option that leaves it alone."""
    output = output_of(settings, FROZEN.format(use="asyncio.run(use_aio())", options=""), tmp_path)
    assert output.startswith("UnusableHereError the clock of this asyncio loop stands still")
    assert "real_asyncio=True" in output
