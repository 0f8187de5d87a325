"""What goes on beside a process's work for as long as it runs."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

logger = logging.getLogger(__name__)

Service = Callable[[], Awaitable[None]]

_PAUSE_SECONDS = 2.0


def run_beside(services: Iterable[Service]) -> list[asyncio.Task[None]]:
    """Run each of these until its task is cancelled: one that fails says so, and begins again after a moment.

    Nobody waits for them, so one that had ended would be missed only when it is needed.
    """
    return [asyncio.ensure_future(_again_and_again(service)) for service in services]


async def _again_and_again(service: Service) -> None:
    while True:
        try:
            await service()
        except Exception:
            logger.exception("%s has failed, and begins again", getattr(service, "__qualname__", service))
        await asyncio.sleep(_PAUSE_SECONDS)
