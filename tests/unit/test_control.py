"""What supervisor and child tell each other, over a real socket pair."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable

import pytest
import uvloop

from limetask_worker.control import Asked, ChildOptions, Control, Done, Failed, Needless, Ready

DEADLINE = 10.0
Talk = Callable[[Control, Control], Awaitable[None]]


def between(talk: Talk) -> None:
    """Have a supervisor's and a child's end talk."""

    async def run() -> None:
        supervisor, child = [await Control.open(end) for end in socket.socketpair()]
        try:
            async with asyncio.timeout(DEADLINE):
                await talk(supervisor, child)
        finally:
            supervisor.close()
            child.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "options",
    [
        ChildOptions("host.12.a"),
        ChildOptions("host.12.a", ("shop", "shop.more"), ("asap", "background"), 3, 1.5, 10, 2**30, "json", "debug"),
        ChildOptions("Größe", ("päckchen",), (), 10_000, 0.0),
    ],
)
def test_options_arrive_as_they_were_sent(options: ChildOptions) -> None:
    """A child gets its options, of the same types."""

    async def talk(supervisor: Control, child: Control) -> None:
        supervisor.send_options(options)
        assert await child.receive_options() == options

    between(talk)


def test_a_ready_child_tells_its_facts() -> None:
    """What a child says of itself when it is at work arrives."""

    async def talk(supervisor: Control, child: Control) -> None:
        child.send_ready({"tasks": ["shop.add", "größe.x"], "slots": 3})
        child.send_ready({})
        assert await supervisor.receive_report() == Ready({"tasks": ["shop.add", "größe.x"], "slots": 3})
        assert await supervisor.receive_report() == Ready({})

    between(talk)


@pytest.mark.parametrize(
    "reason",
    ["no such package", "line 1\nline 2\r\nline 3\u2028line 4", "", "x" * 1_000_000],
    ids=["line", "lines", "none", "long"],
)
def test_a_failed_child_tells_its_reason(reason: str) -> None:
    """Why a child cannot start arrives as it was told: with its line ends, and however long a traceback is."""

    async def talk(supervisor: Control, child: Control) -> None:
        child.send_failed(reason)
        await child.flush()
        assert await supervisor.receive_report() == Failed(reason)

    async def talk_side_by_side(supervisor: Control, child: Control) -> None:
        child.send_failed(reason)
        report, _ = await asyncio.gather(supervisor.receive_report(), child.flush())
        assert report == Failed(reason)

    between(talk_side_by_side if len(reason) > 1000 else talk)


def test_a_reason_that_is_no_valid_unicode_arrives() -> None:
    """A traceback with a text that is no valid Unicode arrives, with something in its place."""

    async def talk(supervisor: Control, child: Control) -> None:
        child.send_failed("no such file: a\udcff")
        report = await supervisor.receive_report()
        assert isinstance(report, Failed)
        assert report.reason.startswith("no such file: a")

    between(talk)


def test_each_report_arrives_as_what_it_is() -> None:
    """A child says that it was asked to stop, that it has nothing to do, and that its work is done."""

    async def talk(supervisor: Control, child: Control) -> None:
        child.send_asked()
        child.send_needless()
        child.send_done()
        assert [await supervisor.receive_report() for _ in range(3)] == [Asked(), Needless(), Done()]

    between(talk)


def test_several_messages_arrive_in_order() -> None:
    """Messages that are sent in one go stay apart."""

    async def talk(supervisor: Control, child: Control) -> None:
        for number in range(100):
            child.send_ready({"number": number})
        reports = [await supervisor.receive_report() for _ in range(100)]
        assert reports == [Ready({"number": number}) for number in range(100)]

    between(talk)


def test_a_child_hears_that_it_is_to_stop() -> None:
    """`stop_requested` returns when the supervisor asks for it, and not before."""

    async def talk(supervisor: Control, child: Control) -> None:
        supervisor.send_options(ChildOptions("host.12.a"))
        await child.receive_options()
        stopping = asyncio.ensure_future(child.stop_requested())
        child.send_ready({})
        await supervisor.receive_report()
        assert not stopping.done()
        supervisor.send_stop()
        await stopping

    between(talk)


def test_a_child_whose_supervisor_is_gone_stops() -> None:
    """The end of the supervisor is a request to stop."""

    async def talk(supervisor: Control, child: Control) -> None:
        supervisor.close()
        await child.stop_requested()

    between(talk)


def test_the_end_of_a_child_is_noticed() -> None:
    """After a child's last report comes None."""

    async def talk(supervisor: Control, child: Control) -> None:
        child.send_ready({})
        child.close()
        assert await supervisor.receive_report() == Ready({})
        assert await supervisor.receive_report() is None

    between(talk)


def test_stopping_a_closed_line_is_nothing() -> None:
    """A request to stop, after the child's end has been noticed and the line closed, does no harm."""

    async def talk(supervisor: Control, child: Control) -> None:
        child.close()
        assert await supervisor.receive_report() is None
        supervisor.close()
        supervisor.send_stop()

    between(talk)


@pytest.mark.parametrize("new_loop", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_the_last_report_of_a_child_that_has_just_ended_is_read(
    new_loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    """It had done its work when its supervisor asked it to stop, which nobody has heard any more."""

    async def run() -> None:
        ours, childs = socket.socketpair()
        supervisor = await Control.open(ours)
        childs.send(b'{"done": true}\n')
        childs.close()
        supervisor.send_stop()
        supervisor.send_stop()
        async with asyncio.timeout(DEADLINE):
            assert await supervisor.receive_report() == Done()
            assert await supervisor.receive_report() is None
        supervisor.close()

    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(run())


def test_a_child_that_has_not_read_for_long_hears_that_it_is_to_stop() -> None:
    """What it has not read yet fills the line: the word to stop comes behind it."""

    async def run() -> None:
        ours, childs = socket.socketpair()
        supervisor = await Control.open(ours)
        filled = 0
        with contextlib.suppress(BlockingIOError):
            while True:
                filled += ours.send(bytes(1000))
        supervisor.send_stop()
        while filled:
            filled -= len(childs.recv(min(filled, 65536)))
        child = await Control.open(childs)
        async with asyncio.timeout(DEADLINE):
            assert await child.receive() == {"stop": True}
        supervisor.close()
        child.close()

    asyncio.run(run())


def test_a_child_whose_supervisor_is_gone_ends_as_any_other() -> None:
    """Its last report reaches nobody, which is no error of the child: its hooks are still to be called."""

    async def talk(supervisor: Control, child: Control) -> None:
        supervisor.close()
        await child.stop_requested()
        child.send_done()
        await child.flush()

    between(talk)


def test_who_is_gone_says_nothing_more_even_when_it_was_written_to() -> None:
    """A child that ends while it is asked to stop is no error of its supervisor."""

    async def talk(supervisor: Control, child: Control) -> None:
        child.close()
        for _ in range(3):
            supervisor.send_stop()
            await asyncio.sleep(0)
        assert await supervisor.receive_report() is None

    between(talk)


def test_writing_to_whoever_has_just_ended_is_its_end_and_nothing_else() -> None:
    """A child that ends at once may be told its options after its end: nobody has to fetch the error of that.

    asyncio would log it with a traceback if it was forgotten.
    """

    async def run() -> None:
        ours, childs = socket.socketpair()
        childs.close()
        supervisor = await Control.open(ours)
        supervisor.send_options(ChildOptions("host.12.a"))
        async with asyncio.timeout(DEADLINE):
            assert await supervisor.receive_report() is None
            await supervisor._writer.wait_closed()  # raises what nobody has fetched
        supervisor.close()

    asyncio.run(run())
