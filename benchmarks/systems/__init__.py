"""What is compared, in the order of the tables."""

from __future__ import annotations

from benchmarks.systems.celery import CELERY_POSTGRESQL, CELERY_REDIS
from benchmarks.systems.dramatiq import DRAMATIQ_NONE, DRAMATIQ_REDIS
from benchmarks.systems.limetask import LIMETASK_POSTGRESQL, LIMETASK_SQLITE
from benchmarks.systems.raw import RAW
from benchmarks.systems.system import System
from benchmarks.systems.taskiq import TASKIQ_REDIS

SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        LIMETASK_POSTGRESQL,
        LIMETASK_SQLITE,
        DRAMATIQ_REDIS,
        DRAMATIQ_NONE,
        TASKIQ_REDIS,
        CELERY_REDIS,
        CELERY_POSTGRESQL,
        RAW,
    )
}
