"""Kills a worker's process at one exact step of its work. Python imports this module by its name when it starts.

LIMETASK_TEST_FAILPOINT names the step. LIMETASK_TEST_TOKENS names a folder: each file in it lets one process die
there, so the test decides how often and when.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# In this time what was written reaches the broker; what it answers is not looked at any more.
_FLUSH_SECONDS = 0.2


def die_if_armed() -> None:
    """Take a token, if there is one, and die of it."""
    if take_token():
        os.kill(os.getpid(), signal.SIGKILL)


def take_token() -> bool:
    for token in Path(os.environ["LIMETASK_TEST_TOKENS"]).iterdir():
        try:
            token.unlink()
        except FileNotFoundError:
            continue  # another process was faster
        return True
    return False


def die_soon() -> asyncio.Future[Any]:
    """Die when what was written is at the broker; the future never ends, so nothing comes of it here."""
    loop = asyncio.get_running_loop()
    loop.call_later(_FLUSH_SECONDS, os.kill, os.getpid(), signal.SIGKILL)
    return loop.create_future()


def patch(owner: type, method: str, replacement: Callable[..., Any]) -> None:
    setattr(owner, method, replacement)


def before_publishing(kind: str) -> None:
    from limetask.amqp import Connection

    publish = Connection.publish

    def publish_or_die(self: Any, exchange: str, key: str, envelope: Any, *more: Any, **named: Any) -> Any:
        if envelope.kind == kind:
            die_if_armed()
        return publish(self, exchange, key, envelope, *more, **named)

    patch(Connection, "publish", publish_or_die)


def before_the_confirm(kind: str) -> None:
    from limetask.amqp import Connection

    publish = Connection.publish

    def publish_and_die(self: Any, exchange: str, key: str, envelope: Any, *more: Any, **named: Any) -> Any:
        confirmed = publish(self, exchange, key, envelope, *more, **named)
        return die_soon() if envelope.kind == kind and take_token() else confirmed

    patch(Connection, "publish", publish_and_die)


def before_the_ack() -> None:
    from limetask.amqp import Connection

    ack = Connection.ack

    def ack_or_die(self: Any, delivery: Any, **named: Any) -> None:
        die_if_armed()
        ack(self, delivery, **named)

    patch(Connection, "ack", ack_or_die)


def before_the_body() -> None:
    from limetask_worker.executor import Executor

    run = Executor.run
    patch(Executor, "run", lambda self, *args: die_soon() if take_token() else run(self, *args))


def before_the_commit() -> None:
    import sqlalchemy.event

    from limetask_worker.store_writer import StoreWriter

    merge = StoreWriter.merge

    def merge_and_die(self: Any, records: Any) -> None:
        if not hasattr(self, "dies_before_commit"):
            self.dies_before_commit = True
            sqlalchemy.event.listen(self._engine, "commit", lambda _connection: die_if_armed())
        merge(self, records)

    patch(StoreWriter, "merge", merge_and_die)


CHILD, RECORDER = "limetask_worker.child", "limetask_worker.recorder"

STEPS: dict[str, tuple[str, Callable[[], None]]] = {
    "before STARTED is published": (CHILD, lambda: before_publishing("started")),
    "between STARTED and its confirm": (CHILD, lambda: before_the_confirm("started")),
    "between STARTED's confirm and the body": (CHILD, before_the_body),
    "between the body and its ack": (CHILD, before_the_ack),
    "between the body and the event": (CHILD, lambda: before_publishing("completion")),
    "between the event and its confirm": (CHILD, lambda: before_the_confirm("completion")),
    "between the event's confirm and the late ack": (CHILD, before_the_ack),
    "before the recorder's commit": (RECORDER, before_the_commit),
    "between the recorder's commit and its ack": (RECORDER, before_the_ack),
}

if _step := os.environ.get("LIMETASK_TEST_FAILPOINT"):
    _module, _install = STEPS[_step]
    if _module in sys.orig_argv:
        _install()
