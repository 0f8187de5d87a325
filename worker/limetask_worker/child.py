"""The task process: takes tasks from the queues and runs them."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Iterable
from datetime import UTC, datetime

from limetask.amqp import Connection
from limetask.message import Alive, Envelope
from limetask.records import encode_alive
from limetask.registry import TaskDeclaration, declared_tasks
from limetask.settings import current_settings
from limetask.signing import Signer
from limetask.topology import Names
from limetask_worker.claims import Claims
from limetask_worker.consumer import Consumer
from limetask_worker.control import ChildOptions, Control
from limetask_worker.executor import Executor
from limetask_worker.limits import Limits
from limetask_worker.loading import load_factory
from limetask_worker.preparing import prepare
from limetask_worker.process import (
    marks_of_this_process,
    needing_threads,
    needless,
    outbox_of_this_process,
    run_child,
    unless_stopped,
)
from limetask_worker.settle import Settler
from limetask_worker.signs_of_life import give_signs_of_life
from limetask_worker.solo import SoloRunner

logger = logging.getLogger(__name__)

_SETTLE_SECONDS = 10.0


async def run_tasks(options: ChildOptions, control: Control, stop: asyncio.Event) -> bool:
    """Run tasks until `stop` is set. Returns False if some were still running when the grace time was over.

    Users' code is imported already. Raises LoadingError, ConfigurationError or BrokerRefusedError for what another
    start would not mend.
    """
    settings = current_settings()
    tasks = declared_tasks()
    if not tasks:
        return needless(options, control, "task", "@task")
    _warn_of_packages_without_tasks(options.packages, tasks.values())
    limits = Limits(settings.consumer_timeout, options.max_tasks, options.max_memory_bytes)
    limits.check(tasks.values())
    executor = Executor(options.slots, load_factory(settings.application_factory), settings.max_result_bytes)
    with needing_threads("lower --slots"):
        executor.start(coroutines=any(task.is_async for task in tasks.values()))
    consuming = Connection(settings, f"consumer {options.worker}")
    publishing = Connection(settings, f"publisher {options.worker}")
    names, signer = Names(settings.namespace), Signer.of(settings)
    settler = Settler(consuming, publishing, names, signer, options.worker, outbox_of_this_process())
    consumer = Consumer(
        connection=consuming,
        names=names,
        signer=signer,
        queues=options.queues,
        slots=options.slots,
        settler=settler,
        executor=executor,
        claims=Claims(publishing, names),
        solo=SoloRunner(options),
        limits=limits,
        marks=marks_of_this_process(),
    )

    giving_signs = asyncio.ensure_future(
        give_signs_of_life(
            publishing,
            settings.worker_timeout,
            lambda: publishing.publish("", names.results_queue, _sign_of_life(options.worker)),
        )
    )
    if await unless_stopped(_connect(publishing, consuming), stop):
        # Said before the first delivery: should this process die, the supervisor then knows that it may have run tasks.
        control.send_ready({"tasks": sorted(tasks)})
        await control.flush()
        await _take_tasks(consumer, limits, stop)
    all_ended = await _finish(consumer, settler, options.grace, stop)
    giving_signs.cancel()
    await consuming.close()
    await publishing.close()
    executor.close()
    return all_ended


async def _take_tasks(consumer: Consumer, limits: Limits, stop: asyncio.Event) -> None:
    """Take tasks until `stop` is set, or this process is to make room for another."""
    gc.freeze()  # all modules are here to stay: the collector need not look at them again and again
    await consumer.start()
    await _until_any(stop, limits.spoilt, limits.used_up)
    if limits.used_up.is_set() and not stop.is_set():
        await _use_up(consumer, limits, stop)
    if limits.spoilt.is_set():
        logger.warning("this process makes room for another: %s", limits.reason)


def _sign_of_life(worker: str) -> Envelope:
    # Its supervisor gives signs for it as well. Either may stand still while the other does not.
    return encode_alive(Alive(datetime.now(UTC), {worker: None}))


def _warn_of_packages_without_tasks(packages: Iterable[str], tasks: Iterable[TaskDeclaration]) -> None:
    modules = {declaration.function.__module__ for declaration in tasks}
    for package in packages:
        if not any(f"{module}.".startswith(f"{package}.") for module in modules):
            logger.warning("%s declares no task", package)


async def _connect(publishing: Connection, consuming: Connection) -> None:
    await publishing.ready_at_last()
    await consuming.ready_at_last()


async def _until_any(*events: asyncio.Event) -> None:
    waiting = [asyncio.ensure_future(event.wait()) for event in events]
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    for one in waiting:
        one.cancel()


async def _use_up(consumer: Consumer, limits: Limits, stop: asyncio.Event) -> None:
    """Take no more tasks and let the running ones end, however long they take, unless the worker is stopped."""
    logger.info("this process makes room for another: %s", limits.reason)
    # Not to be cut short by `stop`: what is cancelled halfway cannot be cancelled again.
    await consumer.stop()
    await unless_stopped(consumer.ended(), stop)


async def _finish(consumer: Consumer, settler: Settler, grace: float, stop: asyncio.Event) -> bool:
    """Take no more tasks, let running ones end, and settle all. The order matters: acks need their connection."""
    await consumer.stop()
    try:
        async with asyncio.timeout(grace):
            await consumer.ended()
    except TimeoutError:
        logger.error("%d tasks had not ended after %g s of grace", consumer.unfinished, grace)
    return await _all_settled(settler, stop) and consumer.unfinished == 0


async def _all_settled(settler: Settler, stop: asyncio.Event) -> bool:
    """Wait until all is confirmed, not for long if the worker is to stop. Nobody waits for one that makes room."""
    if await unless_stopped(settler.settled(), stop):
        return True
    try:
        async with asyncio.timeout(_SETTLE_SECONDS):
            await settler.settled()
    except TimeoutError:
        logger.error("the broker did not confirm everything in %g s", _SETTLE_SECONDS)
        return False
    return True


if __name__ == "__main__":
    run_child(run_tasks, lambda options: prepare(options.packages, declared_tasks))
