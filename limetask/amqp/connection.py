"""The connection that heals itself."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Awaitable, Callable, Iterable

from limetask import ids
from limetask.amqp.delivery import Delivery, ReplyQueue, Subscription
from limetask.amqp.faults import foreseen, unreachable
from limetask.amqp.session import Session, open_pika_connection
from limetask.amqp.size_limit import SizeLimit
from limetask.amqp.unanswered import LOOK_SECONDS
from limetask.amqp.url import connection_parameters
from limetask.errors import (
    BrokerError,
    BrokerRefusedError,
    ConnectionLostError,
    NotConfirmedError,
    TooLargeForBrokerError,
    UnroutableError,
)
from limetask.logs import careful_logger
from limetask.message import Envelope
from limetask.settings import Settings
from limetask.topology import Binding, Names, Topology, topology

logger = careful_logger(__name__)

_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 5.0


class Connection:
    """One self-healing AMQP connection with one channel, in confirm mode.

    `purpose` is what the broker's connection list shows. Consumers named with `consume` are renewed after every
    reconnect. Nothing is published twice: what was not confirmed when a connection closed fails with
    ConnectionLostError, and its sender decides.
    """

    def __init__(self, settings: Settings, purpose: str) -> None:
        """Raises ConfigurationError if the settings' `broker_url` is not an AMQP URL, or a file for TLS is wrong."""
        ids.begin_in_this_process()
        self._parameters = connection_parameters(settings, purpose)
        self._namespace = settings.namespace
        self._topology = topology(Names(settings.namespace))
        self._subscriptions: list[Subscription] = []
        self._reply_queue: ReplyQueue | None = None
        self._session: Session | None = None
        self._size_limit = SizeLimit()
        self._epoch = 0
        self._connected_at = 0.0
        self._waiters: dict[asyncio.Future[None], None] = {}  # in the order in which they came
        self._keeper: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()
        self._last_error: BrokerError | None = None

    @property
    def is_ready(self) -> bool:
        """True while the connection is open and everything on it is declared."""
        return self._session is not None and self._session.is_alive

    @property
    def epoch(self) -> int:
        """How often it was tried to connect: another number means that all may have changed on the broker."""
        return self._epoch

    @property
    def connected_at(self) -> float:
        """When this epoch's connection was about to consume, by time.monotonic(); 0 before the first."""
        return self._connected_at

    @property
    def broker_version(self) -> str:
        """The version that the broker tells, "unknown" if it tells none or there is no connection."""
        return self._session.broker_version if self._session is not None else "unknown"

    async def ready(self, timeout: float) -> None:
        """Return once the connection is usable; opens it at the first call.

        Raises BrokerRefusedError as soon as the broker refuses us, and BrokerUnreachableError or whatever else went
        wrong last when `timeout` seconds are over.
        """
        if self.is_ready:
            return
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep_open())
        self._hurry.set()
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            raise self._last_error or unreachable(self._parameters, "no answer") from None
        finally:
            del self._waiters[waiter]

    async def ready_at_last(self) -> None:
        """Return once the connection is usable, however long the broker takes to come up.

        Raises BrokerRefusedError if the broker refuses us: that seldom mends itself.
        """
        while True:
            try:
                await self.ready(timeout=_LAST_RETRY_SECONDS)
                return
            except BrokerRefusedError:
                raise
            except BrokerError:
                continue  # it is logged, and the keeper goes on trying

    async def _ready_though_refused(self) -> None:
        # A refusal may be mended, and what waits for this must not be lost.
        with contextlib.suppress(BrokerRefusedError):
            await self.ready_at_last()

    async def close(self) -> None:
        """Close for good. May be called twice, and before the connection was open."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ConnectionLostError("the connection was closed"))
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    def publish(
        self,
        exchange: str,
        routing_key: str,
        envelope: Envelope,
        copy_to: str | None = None,
        *,
        mandatory: bool = True,
    ) -> asyncio.Future[None]:
        """Publish a persistent message; the future ends when the broker has confirmed it.

        `copy_to` is a second routing key on the same exchange that the receivers do not see. A message that is not
        mandatory may be for nobody. The future fails with UnroutableError, NotConfirmedError, BrokerRefusedError,
        TooLargeForBrokerError or ConnectionLostError (which means: unknown).
        """
        refusal = self._size_limit.refusal_of(envelope)
        if refusal is not None:
            return _failed(refusal)
        if self._session is None:
            return _failed(ConnectionLostError("not connected to the broker"))
        return self._session.publish(exchange, routing_key, envelope, copy_to, mandatory=mandatory)

    async def publish_until_confirmed(self, exchange: str, routing_key: str, envelope: Envelope) -> None:
        """Publish, and again after every reconnect until it is confirmed: for what must not be lost.

        A receiver may see it twice. If there is no queue for it, everything is declared anew. It is for what is small:
        a broker that takes not even that is asked again until somebody raises its limit.
        """
        while True:
            try:
                return await self.publish_if_it_fits(exchange, routing_key, envelope)
            except TooLargeForBrokerError as exc:
                logger.error("publishing again what must not be lost: %s", exc)
            await asyncio.sleep(_LAST_RETRY_SECONDS)

    async def publish_if_it_fits(self, exchange: str, routing_key: str, envelope: Envelope) -> None:
        """Do the same for what may be large. Raises TooLargeForBrokerError if the broker does not take as much."""
        await self.until_confirmed(lambda: self.publish(exchange, routing_key, envelope))

    async def until_confirmed(self, publish: Callable[[], Awaitable[None]]) -> None:
        """Call and await `publish`, and again after every reconnect, until it raises no BrokerError.

        Raises TooLargeForBrokerError: what is larger than the broker takes would never be confirmed.

        For what has to be done anew before it is published again; all else is as in `publish_until_confirmed`.
        """
        pause = _FIRST_RETRY_SECONDS
        while True:
            try:
                await publish()
                return
            except TooLargeForBrokerError:
                raise
            except (ConnectionLostError, NotConfirmedError) as exc:
                logger.debug("publishing again after: %s", exc)
            except UnroutableError as exc:
                logger.error("declaring all queues and bindings anew: %s", exc)
                await self._declare_anew()
            except BrokerRefusedError as exc:  # a missing permission, say: it may be mended
                logger.error("publishing again what must not be lost: %s", exc)
                pause = _LAST_RETRY_SECONDS
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LAST_RETRY_SECONDS)
            await self._ready_though_refused()

    def require(self, wanted: Topology) -> None:
        """Have this declared too whenever the connection opens; call it before the first `ready`."""
        self._topology += wanted

    async def declare(self, wanted: Topology) -> None:
        """Declare what not everybody needs, on the open connection; it is not declared again after a reconnect.

        A user without the permission to configure makes sure that it is there. Raises BrokerRefusedError for what is
        missing then, with its name and what to do, and for what exists and differs; ConnectionLostError without a
        connection.
        """
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        await self._session.declare(wanted, self._namespace)

    async def unbind(self, bindings: Iterable[Binding]) -> None:
        """Take bindings away; those that are not there make no difference.

        Raises BrokerRefusedError if the user may not, and ConnectionLostError without a connection.
        """
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        await self._session.unbind(bindings, self._namespace)

    async def is_empty(self, queue: str) -> bool:
        """Return True if the queue itself says so, and leave it as it is. Waits for as long as it does not answer.

        Unlike `queue_counts`, which answers with zeros for a queue whose leader does not. Raises BrokerRefusedError if
        the user may not read from the queue, and ConnectionLostError without a connection.
        """
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        return await self._session.is_empty(queue, self._namespace)

    async def delete(self, queue: str) -> int:
        """Delete a queue and return how many messages went with it.

        Raises BrokerRefusedError if the user may not, and ConnectionLostError without a connection.
        """
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        return await self._session.delete(queue, self._namespace)

    async def _declare_anew(self) -> None:
        with contextlib.suppress(BrokerError):  # the connection is lost meanwhile, and declares when it is back
            await self.declare(self._topology)

    async def consume(self, subscription: Subscription) -> None:
        """Consume from a queue, now if the connection is open and again after every reconnect.

        Raises BrokerRefusedError. That the connection is lost meanwhile is not an error: it consumes when it is back.
        """
        self._subscriptions.append(subscription)
        if self._session is not None:
            with contextlib.suppress(ConnectionLostError):
                await self._session.consume(subscription)

    async def cancel(self, subscription: Subscription) -> None:
        """Stop the deliveries of one subscription; what it has delivered can still be acked or given back.

        Raises ConnectionLostError if the connection is lost meanwhile: then its deliveries are back in their queue.
        """
        self._subscriptions.remove(subscription)
        if self._session is not None:
            await self._session.cancel(subscription)

    async def cancel_consumers(self) -> None:
        """Stop all deliveries; what was delivered can still be acked."""
        self._subscriptions.clear()
        if self._session is not None:
            await self._session.cancel_consumers()

    async def queue_counts(self, queue: str) -> tuple[int, int]:
        """Return how many messages wait in a queue, those being delivered not counted, and how many consume from it.

        The broker answers 0 and 0 as well for a queue whose leader does not answer it, as when a node hangs or is lost,
        for up to some ten seconds: do nothing that cannot be undone because of zeros.

        Raises ConnectionLostError without a connection, and BrokerRefusedError if there is no such queue.
        """
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        return await self._session.queue_counts(queue)

    async def find_queue(self, queue: str) -> tuple[int, int] | None:
        """Return the counts of a queue that may be missing, None if it is; all else is as in `queue_counts`."""
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        return await self._session.find_queue(queue, self._namespace)

    async def get(self, queue: str) -> Delivery | None:
        """Take one message off a queue, None if there is none; one call at a time. Raises BrokerError."""
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        return await self._session.get(queue)

    def set_reply_queue(self, reply_queue: ReplyQueue) -> None:
        """Have a reply queue on this connection; call it before the first `ready`."""
        self._reply_queue = reply_queue

    def ack(self, delivery: Delivery, *, multiple: bool = False) -> None:
        """Ack a delivery, with `multiple` all before it too. Without effect if its connection is gone."""
        if self._session is not None and self.holds(delivery):
            self._session.ack(delivery.tag, multiple=multiple)

    def give_back(self, delivery: Delivery) -> None:
        """Return a delivery to its queue. Without effect if its connection is gone: it is back already."""
        if self._session is not None and self.holds(delivery):
            self._session.give_back(delivery.tag, requeue=True)

    def reject(self, delivery: Delivery) -> None:
        """Have the broker itself make a dead letter of a delivery, whatever its size; the queue must have been made so.

        It is not confirmed. Without effect if the delivery's connection is gone: it is back in its queue.
        """
        if self._session is not None and self.holds(delivery):
            self._session.give_back(delivery.tag, requeue=False)

    def holds(self, delivery: Delivery) -> bool:
        """Return True while a delivery is still ours to ack: its connection has not been lost since."""
        return delivery.epoch == self.live_epoch

    @property
    def live_epoch(self) -> int | None:
        """The epoch whose deliveries are held, None without a connection: for many of them at once, as it is quicker.

        It may change with each turn of the loop.
        """
        return self._session.epoch if self._session is not None and self._session.is_alive else None

    def renew(self, reason: str) -> None:
        """Connect again: what the connection had on the broker seems to be gone. Without effect if there is none."""
        if self._session is not None:
            self._session.end(ConnectionLostError(reason))

    async def _keep_open(self) -> None:
        failures = 0
        while True:
            try:
                session = await self._open_session()
            except Exception as exc:  # noqa: BLE001 - whatever it is, nobody else would connect again
                failures += 1
                self._note_failure(foreseen(exc))
                await self._pause(failures)
                continue
            failures = 0
            self._note_success()
            error = await _end_of(session)
            self._size_limit.note_end(error)
            self._session = None
            logger.warning("the connection to the broker is lost: %s", error)

    async def _open_session(self) -> Session:
        self._epoch += 1
        session = Session(await open_pika_connection(self._parameters), self._parameters, self._epoch)
        try:
            await session.declare(self._topology, self._namespace)
            await session.open_channel()
            if self._reply_queue is not None:
                await session.consume_replies(self._reply_queue)
            await self._renew_subscriptions(session)
        except BaseException:
            self._session = None
            await session.close()
            raise
        return session

    async def _renew_subscriptions(self, session: Session) -> None:
        # The session is in force before its first consumer: a delivery that comes at once is already ours to ack.
        subscriptions = tuple(self._subscriptions)
        self._session = session
        self._connected_at = time.monotonic()
        for subscription in subscriptions:
            if subscription in self._subscriptions:  # else it was cancelled meanwhile
                await session.consume(subscription)

    def _note_failure(self, error: BrokerError) -> None:
        self._size_limit.note_end(error)
        told = isinstance(error, BrokerRefusedError) and self._tell_waiters(error)
        if not told and str(error) != str(self._last_error):
            logger.warning("%s", error)
        self._last_error = error

    def _tell_waiters(self, error: BrokerRefusedError) -> bool:
        """Raise an error to all who wait for the connection; return False if nobody does."""
        waiting = [waiter for waiter in self._waiters if not waiter.done()]
        for waiter in waiting:
            waiter.set_exception(error)
        return bool(waiting)

    def _note_success(self) -> None:
        if self._epoch > 1:
            logger.info("connected to the broker again")
        self._last_error = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def _pause(self, failures: int) -> None:
        """Wait longer after every failure, with jitter; not for long if somebody waits for the connection."""
        longest = _FIRST_RETRY_SECONDS if self._waiters else _LAST_RETRY_SECONDS
        seconds = min(longest, _FIRST_RETRY_SECONDS * 2**failures) * random.uniform(0.7, 1.3)
        self._hurry.clear()
        try:
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        except TimeoutError:
            return


def _failed(error: BrokerError) -> asyncio.Future[None]:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    future.set_exception(error)
    return future


async def _end_of(session: Session) -> BrokerError:
    """Return why a session has ended, once it has."""
    while not session.closed.done():
        await asyncio.wait([session.closed], timeout=LOOK_SECONDS)
        session.end_if_unanswered()
    return session.closed.result()
