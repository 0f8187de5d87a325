"""The client of one event loop, and how it is found."""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import Iterable
from functools import partial
from typing import Any

from limetask.aio.connection import Connection
from limetask.aio.listener import Listener
from limetask.aio.subscription import Subscription
from limetask.application import AnyApplication
from limetask.bulk import Bulk, BulkSender
from limetask.client import STATUS_READER
from limetask.ends import Ends
from limetask.errors import ConnectionLostError
from limetask.message import Envelope
from limetask.patterns import EventPattern
from limetask.reading import FIRST_POLL_SECONDS, LAST_POLL_SECONDS, StatusLookup, wait_timeout
from limetask.sending import Preparer, Sender, TaskCall
from limetask.settings import Settings, current_settings
from limetask.status import TaskStatus
from limetask.topology import Names


class Client:
    """Everything that one loop needs to send tasks and to hear of them."""

    def __init__(self, settings: Settings, former: Client | None = None) -> None:
        """`former` is the loop's client for other settings, closed as soon as somebody can wait for it."""
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
        bulk = Bulk([self._preparer.task(call) for call in calls])
        if bulk.tasks:
            await self._bulk_sender.send(bulk)
        return bulk.statuses()

    async def publish_event(self, app: AnyApplication, routing_key: str, body: Any) -> str:
        """Publish a user's own event; see `limetask.aio.publish_event`."""
        event = self._preparer.event(app, routing_key, body)
        await self._sender.publish_event(event)
        return event.id

    async def status(self, task_id: str, app: str) -> TaskStatus:
        """Return a task's status; see `limetask.aio.get_status`."""
        return await asyncio.to_thread(self._lookup.status, task_id, app)

    async def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        """Return a task's last status; see `limetask.aio.wait`."""
        self._open_listener()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout
        expected: asyncio.Future[TaskStatus] = loop.create_future()
        with self._ends.expecting(status.id, partial(_arrive, expected, status.app)):
            pause = FIRST_POLL_SECONDS
            while True:
                remaining = deadline - loop.time()
                await asyncio.wait([expected], timeout=max(0.0, min(pause, remaining)))
                if expected.done():
                    return self._lookup.bound(expected.result())
                current, store_error = await asyncio.to_thread(self._lookup.look, status)
                if current.is_completed():
                    return current
                if remaining <= 0:
                    raise store_error or wait_timeout(current, timeout)
                pause = min(pause * 2, LAST_POLL_SECONDS)

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


# Loops of several threads may be here; each touches its own entry, and those of loops that are closed.
_clients: dict[asyncio.AbstractEventLoop, Client] = {}
# Clients of a parent process. They are never closed here, since their sockets are the parent's, and never collected,
# since a collected transport would close a descriptor that may be another's by now.
_abandoned: list[dict[asyncio.AbstractEventLoop, Client]] = []


async def current_client() -> Client:
    """Return the client of the running loop for the current settings; one for former settings is closed."""
    client = opened_client()
    await client.close_former()
    return client


def opened_client() -> Client:
    """Return the client of the running loop for the current settings."""
    _forget_closed_loops()
    loop, settings = asyncio.get_running_loop(), current_settings()
    client = _clients.get(loop)
    if client is None or client.settings is not settings:
        client = _clients[loop] = Client(settings, former=client)
    return client


async def close_client() -> None:
    """Close the client of the running loop, if there is one."""
    client = _clients.pop(asyncio.get_running_loop(), None)
    if client is not None:
        await client.close()


def _forget_closed_loops() -> None:
    for loop in list(_clients):
        if loop.is_closed():
            _clients.pop(loop, None)


def _abandon_clients_after_fork() -> None:
    global _clients
    _abandoned.append(_clients)
    _clients = {}


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_clients_after_fork)


def _arrive(expected: asyncio.Future[TaskStatus], app: str, end: TaskStatus) -> None:
    if end.app == app and not expected.done():
        expected.set_result(end)
