"""The event process: runs the event handlers of users' packages."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
from collections.abc import Collection
from datetime import UTC, datetime

from limetask.amqp import Connection
from limetask.errors import BrokerError
from limetask.handlers import HandlerDeclaration, declared_handlers
from limetask.message import HandlerBindings
from limetask.records import encode_handlers
from limetask.settings import Settings, current_settings
from limetask.topology import Names, Topology, broadcast_topology, handler_topology
from limetask_worker.applications import ApplicationFactory
from limetask_worker.control import ChildOptions, Control
from limetask_worker.handler_consumer import HandlerConsumer
from limetask_worker.handler_executor import HandlerExecutor
from limetask_worker.limits import Limits
from limetask_worker.loading import load_factory
from limetask_worker.marks import Marks
from limetask_worker.preparing import prepare
from limetask_worker.process import marks_of_this_process, needing_threads, needless, run_child, unless_stopped

logger = logging.getLogger(__name__)

_TELL_EVERY_SECONDS = 60.0
# A third of the time after which the broker deletes a broadcast handler's queue that nobody uses.
_RENEW_EVERY_SECONDS = 20.0


class EventRunner:
    """Runs handlers, each from a queue of its own."""

    def __init__(
        self,
        settings: Settings,
        worker: str,
        handlers: Collection[HandlerDeclaration],
        make_application: ApplicationFactory,
        limits: Limits,
        marks: Marks,
    ) -> None:
        self._limits = limits
        self._marks = marks
        self._names = Names(settings.namespace)
        self._handlers = handlers
        self._loaded_at = datetime.now(UTC)
        self._consuming = Connection(settings, f"events {worker}")
        self._publishing = Connection(settings, f"events-publisher {worker}")
        daemon = secrets.token_hex(6)
        self._topologies = {handler.name: _topology(self._names, handler, daemon) for handler in handlers}
        for topology in self._topologies.values():
            self._consuming.require(topology)
        self._consumers = [self._consumer(handler, make_application) for handler in handlers]

    async def open(self) -> None:
        """Connect, and declare and bind all queues. Raises BrokerRefusedError."""
        await self._publishing.ready_at_last()
        await self._consuming.ready_at_last()

    async def run(self, stop: asyncio.Event, grace: float) -> bool:
        """Handle events until `stop` is set, or this process is to make room for another.

        Returns False if a handler had not ended `grace` seconds later.
        """
        loop = asyncio.get_running_loop()
        beside = [loop.create_task(self._tell_for_ever()), loop.create_task(self._renew_for_ever())]
        for consumer in self._consumers:
            await consumer.start()
        await unless_stopped(self._spoilt(), stop)
        for task in beside:
            task.cancel()
        return await self._finish(grace)

    async def _spoilt(self) -> None:
        await self._limits.spoilt.wait()
        logger.warning("this process makes room for another: %s", self._limits.reason)

    async def close(self) -> None:
        await self._consuming.close()
        await self._publishing.close()

    def _consumer(self, handler: HandlerDeclaration, make_application: ApplicationFactory) -> HandlerConsumer:
        [queue] = self._topologies[handler.name].queues
        executor = HandlerExecutor(handler, make_application)
        return HandlerConsumer(
            handler, queue.name, executor, self._consuming, self._publishing, self._names, self._limits, self._marks
        )

    async def _finish(self, grace: float) -> bool:
        try:
            async with asyncio.timeout(grace):
                await asyncio.gather(*(consumer.stop() for consumer in self._consumers))
        except TimeoutError:
            logger.error("event handlers had not ended after %g s of grace: their events come again", grace)
            return False
        return True

    async def _tell_for_ever(self) -> None:
        """Tell the recorder which handlers there are, so that it removes what their queues are bound to no more.

        Bound anew each time, should a worker with older code have had what is ours removed meanwhile.
        """
        shared = [handler for handler in self._handlers if handler.mode == "shared"]
        while shared:
            bindings = [HandlerBindings(one.name, sorted(one.bindings), self._loaded_at) for one in shared]
            try:
                for handler in shared:
                    await self._consuming.declare(self._topologies[handler.name])
                await self._publishing.publish("", self._names.results_queue, encode_handlers(bindings))
            except BrokerError as exc:
                logger.debug("the handlers could not be told: %s", exc)
            await asyncio.sleep(_TELL_EVERY_SECONDS)

    async def _renew_for_ever(self) -> None:
        """Declare the queues of broadcast handlers again and again: one that stands still has no consumer."""
        broadcast = [handler for handler in self._handlers if handler.mode == "broadcast"]
        while broadcast:
            await asyncio.sleep(_RENEW_EVERY_SECONDS)
            for handler in broadcast:
                with contextlib.suppress(BrokerError):
                    await self._consuming.declare(self._topologies[handler.name])


def _topology(names: Names, handler: HandlerDeclaration, daemon: str) -> Topology:
    if handler.mode == "broadcast":
        return broadcast_topology(names, handler.name, daemon, handler.bindings)
    return handler_topology(names, handler.name, handler.bindings)


async def run_handlers(options: ChildOptions, control: Control, stop: asyncio.Event) -> bool:
    """Run event handlers until `stop` is set. Returns False if some were still running when the grace time was over.

    Users' code is imported already. Raises LoadingError, ConfigurationError or BrokerRefusedError for what another
    start would not mend.
    """
    settings = current_settings()
    handlers = declared_handlers()
    if not handlers:
        return needless(options, control, "event handler", "@event_handler")
    limits = Limits(settings.consumer_timeout, None, None)
    limits.check_handlers(handlers.values())
    make_application = load_factory(settings.application_factory)
    with needing_threads("lower the concurrency of event handlers"):
        marks = marks_of_this_process()
        runner = EventRunner(settings, options.worker, handlers.values(), make_application, limits, marks)
    all_ended = True
    if await unless_stopped(runner.open(), stop):
        control.send_ready({"handlers": sorted(handlers)})
        all_ended = await runner.run(stop, options.grace)
    await runner.close()
    return all_ended


if __name__ == "__main__":
    run_child(run_handlers, lambda options: prepare(options.packages, declared_handlers))
