"""Whether gevent or eventlet has replaced what the worker needs of Python."""

from __future__ import annotations

import sys

# With any of these replaced, a thread that waits stops the whole process, or waits for ever.
_GEVENT_MODULES = ("_thread", "threading", "select", "queue")
_EVENTLET_MODULES = ("thread", "select")


def who_replaced_threads() -> str | None:
    """Return the call that has replaced Python's threads by greenlets, None if they are what they were."""
    gevent, eventlet = sys.modules.get("gevent.monkey"), sys.modules.get("eventlet.patcher")
    if gevent is not None and any(map(gevent.is_module_patched, _GEVENT_MODULES)):
        return "gevent.monkey.patch_all()"
    if eventlet is not None and any(map(eventlet.is_monkey_patched, _EVENTLET_MODULES)):
        return "eventlet.monkey_patch()"
    return None
