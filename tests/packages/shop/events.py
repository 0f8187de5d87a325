"""Tasks that publish events of their own."""

from __future__ import annotations

import asyncio
import threading

from limetask import Application, publish_event, task

KEY = "shop.order.paid.v1"


@task
def publish(app: Application, order: int) -> str:
    """Publish an event, and return its id."""
    return publish_event(app, KEY, {"order": order})


@task
async def publish_async(app: Application, order: int) -> str:
    """Publish from a coroutine, in a thread, as one does what blocks."""
    return await asyncio.to_thread(publish_event, app, KEY, {"order": order})


@task
def publish_in_a_thread(app: Application, order: int) -> None:
    """Publish from a thread of one's own, which does not know on whose behalf it runs."""
    thread = threading.Thread(target=publish_event, args=(app, KEY, {"order": order}))
    thread.start()
    thread.join()
