"""The connection that heals itself, on aio-pika."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from limetask.aio.session import Session, end_if_cancelled, open_session
from limetask.amqp.faults import foreseen, unreachable
from limetask.amqp.size_limit import SizeLimit
from limetask.amqp.url import connection_parameters
from limetask.errors import BrokerError, BrokerRefusedError, BrokerUrlError, ConnectionLostError
from limetask.logs import careful_logger
from limetask.message import Envelope
from limetask.settings import Settings
from limetask.topology import Names, Topology, topology

logger = careful_logger(__name__)

_FIRST_RETRY_SECONDS = 0.1
_LAST_RETRY_SECONDS = 2.0
# A broker that has just started may take a while until its queues have leaders.
_SET_UP_SECONDS = 20.0


class Connection:
    """One self-healing connection; it does for aio-pika what `limetask.amqp.Connection` does for pika.

    `purpose` is what the broker's connection list shows. `on_open` is awaited with each new session after `wanted` and
    the topology of the namespace are declared, and before it counts as ready. Belongs to one loop.

    aio-pika's own robust connection is not used: it tells nobody that a connection was lost and messages may have been
    missed, and has no deadlines.
    """

    def __init__(
        self,
        settings: Settings,
        purpose: str,
        *,
        wanted: Topology | None = None,
        on_open: Callable[[Session], Awaitable[None]] | None = None,
    ) -> None:
        """Raises ConfigurationError if the settings' `broker_url` is not an AMQP URL, or a file for TLS is wrong."""
        self._parameters = connection_parameters(settings, purpose)
        _check_virtual_host(self._parameters.virtual_host)
        self._namespace = settings.namespace
        self._wanted = [topology(Names(settings.namespace)), *([wanted] if wanted else [])]
        self._on_open = on_open
        self._session: Session | None = None
        self._size_limit = SizeLimit()
        self._keeper: asyncio.Task[None] | None = None
        self._waiters: dict[asyncio.Future[None], None] = {}  # in the order in which they came
        self._hurry = asyncio.Event()
        self._last_error: BrokerError | None = None
        self._is_first = True

    async def ready(self, timeout: float) -> None:
        """Return once the connection is usable; opens it at the first call.

        Raises BrokerRefusedError as soon as the broker refuses us, and BrokerUnreachableError or whatever else went
        wrong last when `timeout` seconds are over.
        """
        if self._session is not None and self._session.is_alive:
            return
        if self._keeper is None:
            self._keeper = asyncio.get_running_loop().create_task(self._keep_open(), name="limetask connection")
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

    async def publish(self, exchange: str, routing_key: str, envelope: Envelope, *, mandatory: bool = True) -> None:
        """Publish a persistent message, and return when the broker has confirmed it.

        A message that is not mandatory may be for nobody. Raises UnroutableError, NotConfirmedError,
        BrokerRefusedError, TooLargeForBrokerError or ConnectionLostError (which means: unknown).
        """
        refusal = self._size_limit.refusal_of(envelope)
        if refusal is not None:
            raise refusal
        if self._session is None:
            raise ConnectionLostError("not connected to the broker")
        await self._session.publish(exchange, routing_key, envelope, mandatory=mandatory)

    async def close(self) -> None:
        """Close for good. May be called twice, and before the connection was open."""
        keeper, self._keeper = self._keeper, None
        if keeper is not None:
            keeper.cancel()
            await asyncio.wait([keeper])
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_exception(ConnectionLostError("the connection was closed"))

    async def _keep_open(self) -> None:
        failures = 0
        while True:
            try:
                async with open_session(self._parameters, self._namespace) as session:
                    await self._set_up(session)
                    failures = 0
                    self._note_success(session)
                    await asyncio.wait([session.closed])
                    self._session = None
                    self._size_limit.note_end(session.closed.result())
                    logger.warning("the connection to the broker is lost: %s", session.closed.result())
            except Exception as exc:  # noqa: BLE001 - whatever it is, nobody else would connect again
                end_if_cancelled()
                failures += 1
                self._note_failure(foreseen(exc))
                await self._pause(failures)
            finally:
                self._session = None

    async def _set_up(self, session: Session) -> None:
        try:
            async with asyncio.timeout(_SET_UP_SECONDS):
                for wanted in self._wanted:
                    await session.declare(wanted)
                if self._on_open is not None:
                    await self._on_open(session)
            end_if_cancelled()
        except TimeoutError:
            raise ConnectionLostError(
                f"the broker has not answered for {_SET_UP_SECONDS:g} s: has one of its quorum queues no leader?"
            ) from None

    def _note_success(self, session: Session) -> None:
        self._session = session
        if not self._is_first:
            logger.info("connected to the broker again")
        self._is_first = False
        self._last_error = None
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

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


def _check_virtual_host(name: str) -> None:
    """Raise BrokerUrlError for a name that aiormq 7.2.4 decodes twice: it would open another virtual host."""
    if "%2F" in name:
        raise BrokerUrlError(
            f"broker_url (LIMETASK_BROKER_URL) names the virtual host {name!r}, which limetask.aio cannot open: its "
            "library takes %2F in the name for a slash. If a slash is meant, write it %2F in the URL, not %252F; else "
            "give the virtual host another name"
        )
