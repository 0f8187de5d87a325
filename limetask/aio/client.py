"""The client of one event loop, and how it is found."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
import uuid
from collections.abc import Iterable, Sequence
from functools import partial
from types import BuiltinFunctionType
from typing import Any

from limetask import ids
from limetask.aio.connection import Connection
from limetask.aio.listener import Listener
from limetask.aio.subscription import Subscription
from limetask.aio.threads import blocking
from limetask.application import AnyApplication
from limetask.bulk import Bulk, BulkSender
from limetask.client import STATUS_READER
from limetask.ends import Ends
from limetask.errors import ConnectionLostError, UnusableHereError, WaitTimeoutError
from limetask.message import Envelope
from limetask.patterns import EventPattern
from limetask.reading import (
    FIRST_POLL_SECONDS,
    LAST_POLL_SECONDS,
    StatusLookup,
    is_just_sent,
    wait_all_timeout,
    wait_timeout,
)
from limetask.sending import Preparer, Sender, TaskCall
from limetask.settings import Settings, current_settings
from limetask.status import TaskStatus
from limetask.threads import check_usable
from limetask.topology import Names


class Client:
    """Everything that one loop needs to send tasks and to hear of them."""

    def __init__(self, settings: Settings, former: Client | None = None) -> None:
        """`former` is the loop's client for other settings, closed as soon as somebody can wait for it."""
        ids.begin_in_this_process()
        self.settings = settings
        self._former = former
        self._names = Names(settings.namespace)
        self._reply_key = self._names.reply_key(secrets.token_hex(8))
        self._preparer = Preparer(settings, self._reply_key, STATUS_READER)
        self._sender = Sender(settings, self._open_publisher)
        self._bulk_sender = BulkSender(settings, self._open_publisher)
        self._ends = Ends()
        self._lookup = StatusLookup(settings, self._ends.end_of, STATUS_READER)
        self._publisher: Connection | None = None
        self._listener: Listener | None = None
        self._subscriptions: set[Subscription[Any]] = set()

    async def send(self, call: TaskCall) -> TaskStatus:
        """Send one task; see `limetask.aio.send_task`."""
        prepared = self._preparer.task(call)
        await self._sender.send(prepared)
        return prepared.status

    async def send_many(self, calls: Iterable[TaskCall]) -> list[TaskStatus]:
        """Send many tasks; see `limetask.aio.send_tasks`."""
        bulk = Bulk(self._preparer.tasks(calls))
        if bulk.tasks:
            await self._bulk_sender.send(bulk)
        return bulk.statuses()

    async def publish_event(self, app: AnyApplication, routing_key: str, body: Any) -> str:
        """Publish a user's own event; see `limetask.aio.publish_event`."""
        event = self._preparer.event(app, routing_key, body)
        await self._sender.publish_event(event)
        return event.id

    async def status(self, task_id: str | uuid.UUID, app: str) -> TaskStatus:
        """Return a task's status; see `limetask.aio.get_status`."""
        return await blocking(self._lookup.status_of_any, task_id, app)

    async def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        """Return a task's last status; see `limetask.aio.wait`."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        expected: asyncio.Future[TaskStatus] = loop.create_future()
        with self._ends.expecting(status.id, partial(_arrive, expected, status.app)):
            pause = FIRST_POLL_SECONDS
            if is_just_sent(status):
                self._open_listener()
                await asyncio.wait([expected], timeout=min(pause, max(0.0, timeout)))
            while not expected.done():
                current, store_error = await blocking(self._lookup.look, status)
                if current.is_completed():
                    return current
                remaining = deadline - loop.time()
                if remaining <= 0:
                    raise store_error or wait_timeout(current, timeout)
                self._open_listener()
                await asyncio.wait([expected], timeout=min(pause, remaining))
                pause = min(pause * 2, LAST_POLL_SECONDS)
            return self._lookup.bound(expected.result())

    async def wait_all(self, statuses: Sequence[TaskStatus], timeout: float) -> list[TaskStatus]:
        """Return the last statuses of all these tasks; see `limetask.aio.wait_all`."""
        deadline = asyncio.get_running_loop().time() + timeout
        last = [await self._last_status(status, deadline) for status in statuses]
        if not all(status.is_completed() for status in last):
            raise wait_all_timeout(last, timeout)
        return last

    async def _last_status(self, status: TaskStatus, deadline: float) -> TaskStatus:
        if status.is_completed():
            return status
        try:
            return await self.wait(status, max(0.0, deadline - asyncio.get_running_loop().time()))
        except WaitTimeoutError as exc:
            return exc.statuses[0]

    def subscribe(
        self,
        patterns: tuple[str | EventPattern, ...],
        app: AnyApplication | None,
        durable: str | None,
        *,
        tell_missed: bool,
    ) -> Subscription[Any]:
        """Return a subscription that is not open yet; see `limetask.aio.subscribe`."""
        return Subscription(
            self.settings,
            patterns,
            app,
            durable,
            tell_missed=tell_missed,
            publish_dead_letter=self._publish_dead_letter,
            opened=self._subscriptions,
        )

    async def close_former(self) -> None:
        """Close the client that this one has replaced, if there is one."""
        former, self._former = self._former, None
        if former is not None:
            await former.close()

    async def close(self) -> None:
        """Close all connections. May be called twice."""
        await self.close_former()
        subscriptions = tuple(self._subscriptions)
        connections = [one for one in (self._publisher, self._listener) if one is not None]
        self._publisher = self._listener = None
        await asyncio.gather(*(one.close() for one in (*subscriptions, *connections)))
        self._lookup.close()

    async def _publish_dead_letter(self, letter: Envelope) -> None:
        publisher = self._open_publisher()
        await publisher.ready(self.settings.send_timeout)
        try:
            async with asyncio.timeout(self.settings.send_timeout):
                await publisher.publish(self._names.dead_exchange, "", letter)
        except TimeoutError:
            raise ConnectionLostError("the broker did not confirm a dead letter in time") from None

    def _open_publisher(self) -> Connection:
        if self._publisher is None:
            self._publisher = Connection(self.settings, "aio producer")
        return self._publisher

    def _open_listener(self) -> None:
        if self._listener is None:
            self._listener = Listener(self.settings, self._reply_key, self._ends)
            self._listener.start()


# By process and loop: not all that fork run Python's hooks (uWSGI does not). Loops of several threads may be here; each
# touches its own entry, and those of loops that are closed.
_clients: dict[tuple[int, asyncio.AbstractEventLoop], Client] = {}
# Clients of a parent process. They are never closed here, since their sockets are the parent's, and never collected,
# since a collected transport would close a descriptor that may be another's by now.
_abandoned: list[Client] = []


async def current_client() -> Client:
    """Return the client of the running loop for the current settings; one for former settings is closed."""
    client = opened_client()
    await client.close_former()
    return client


def opened_client() -> Client:
    """Return the client of the running loop for the current settings."""
    check_usable()
    loop, settings = _running_loop(), current_settings()
    _forget_closed_loops()
    key = (os.getpid(), loop)
    client = _clients.get(key)
    if client is None or client.settings is not settings:
        client = _clients[key] = Client(settings, former=client)
    return client


async def close_client() -> None:
    """Close the client of the running loop, if there is one."""
    client = _clients.pop((os.getpid(), _running_loop()), None)
    if client is not None:
        await client.close()


def _running_loop() -> asyncio.AbstractEventLoop:
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        raise UnusableHereError(
            "limetask.aio needs a running asyncio loop, and there is none here. Under trio, call limetask's own "
            "functions in a thread: `await trio.to_thread.run_sync(limetask.send_task, task, app)`"
        ) from None
    _check_clock(loop)
    return loop


def _check_clock(loop: asyncio.AbstractEventLoop) -> None:
    """Raise UnusableHereError if a test has stopped the clock of the loop, by which all deadlines are kept."""
    if isinstance(time.monotonic, BuiltinFunctionType) or not isinstance(loop, asyncio.BaseEventLoop):
        return  # nothing has replaced it, or the loop has a clock of its own, as uvloop has
    if loop.time() == loop.time():
        raise UnusableHereError(
            "the clock of this asyncio loop stands still, as freezegun has it, so no deadline would ever come: freeze "
            "with `freeze_time(..., real_asyncio=True)`"
        )


def _forget_closed_loops() -> None:
    for key in tuple(_clients):
        if key[1].is_closed() and key[0] == os.getpid():
            _clients.pop(key, None)


def _abandon_clients_after_fork() -> None:
    _abandoned.extend(_clients.values())
    _clients.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_clients_after_fork)


def _arrive(expected: asyncio.Future[TaskStatus], app: str, end: TaskStatus) -> None:
    if end.app == app and not expected.done():
        expected.set_result(end)
