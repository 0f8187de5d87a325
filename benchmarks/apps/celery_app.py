"""The tasks for Celery, with the settings that its documentation gives for many short tasks."""

from __future__ import annotations

import time

from celery import Celery

from benchmarks.place import Place
from benchmarks.starts import note_start

_place = Place.from_environment()
_BACKENDS = {
    "redis": _place.redis_url,
    "postgresql": f"db+{_place.postgresql_url}",
}

app = Celery("benchmark", broker=_place.broker_url, backend=_BACKENDS[_place.results])
app.conf.update(
    task_default_queue=_place.namespace,
    event_queue_prefix=f"{_place.namespace}.events",
    event_exchange=f"{_place.namespace}.events",
    broker_transport_options={"confirm_publish": True},
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=128,
    worker_enable_remote_control=False,
    worker_disable_rate_limits=True,
    worker_send_task_events=_place.results == "postgresql",
)


@app.task
def noop(argument: str) -> None:
    """Do nothing."""
    note_start(argument)


@app.task
def sleep_1_ms(argument: str) -> None:
    """Sleep for a millisecond."""
    note_start(argument)
    time.sleep(0.001)


@app.task
def sleep_10_ms(argument: str) -> None:
    """Sleep for ten milliseconds."""
    note_start(argument)
    time.sleep(0.01)
