"""Works to run in a test, as a task process has them."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from limetask import ids
from limetask.amqp import Delivery
from limetask.codec import encode_task
from limetask.message import TaskIdentity, TaskMessage
from limetask.registry import TaskDeclaration
from limetask_worker.marks import Mark
from limetask_worker.work import Work


def work_of(body: Callable[..., Any], *args: Any, **kwargs: Any) -> Work:
    """The first attempt of application `shop` at a task with this body."""
    identity = TaskIdentity(ids.new_task_id("shop"), "pkg.tasks.run", "shop", 1, None)
    delivery = Delivery(1, 1, "limetask.tasks.default", False, encode_task(identity, b""))
    declaration = TaskDeclaration(body, name="pkg.tasks.run", acks_late=False, qos="default", time_limit=None)
    work = Work(delivery, TaskMessage(identity, args, kwargs), declaration)
    work.mark = Mark()
    return work


def join_coroutine_threads() -> None:
    """Wait for the end of the threads in which closed executors ran coroutines."""
    for thread in threading.enumerate():
        if thread.name.startswith(("coroutine-tasks", "handler ")):
            thread.join(timeout=10.0)
