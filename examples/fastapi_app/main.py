"""The application: `uvicorn fastapi_app.main:web`, in the folder `examples`.

Who calls says which application it is in the header `X-Application`. A real platform takes that from the session that
it has checked: whoever may choose the application sees everything of it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Header, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from limetask import (
    ApplicationError,
    ArgumentsError,
    BrokerError,
    Event,
    MessageTooLargeError,
    NotFoundError,
    SendOutcomeUnknownError,
    StoreError,
    TaskNameError,
    aio,
)

# A proxy takes a silent connection for a dead one.
_KEEP_ALIVE_SECONDS = 15.0

ApplicationHeader = Annotated[str, Header(alias="X-Application", min_length=1)]


class NewTask(BaseModel):
    """Which task is to be run, with what."""

    task: str
    args: list[Any] = []
    kwargs: dict[str, Any] = {}


@contextlib.asynccontextmanager
async def lifespan(_web: FastAPI) -> AsyncIterator[None]:
    """Nothing to open, since limetask connects at its first use; its connections are closed at the end."""
    yield
    await aio.close()


web = FastAPI(title="limetask example", lifespan=lifespan)


@web.post("/tasks", status_code=202)
async def send(new: NewTask, application: ApplicationHeader) -> dict[str, Any]:
    """Send a task; it is at the broker when this answers."""
    status = await aio.send_task(new.task, application, *new.args, **new.kwargs)
    return status.to_dict()


@web.get("/tasks/{task_id}")
async def status_of(task_id: str, application: ApplicationHeader) -> dict[str, Any]:
    """Tell a task's status, to the application that it belongs to."""
    return (await aio.get_status(task_id, application)).to_dict()


@web.get("/events")
async def events(application: ApplicationHeader) -> StreamingResponse:
    """Stream the ends of the application's own tasks as server-sent events.

    It answers when the subscription is bound: no end of a task that is sent afterwards is missed. After a gap it sends
    an event named "missed", for a page that then asks for the statuses that it shows.
    """
    subscription = aio.subscribe("core.task.#", app=application, tell_missed=True)
    await subscription.open()
    headers = {"Cache-Control": "no-store"}
    return StreamingResponse(_stream(subscription), media_type="text/event-stream", headers=headers)


async def _stream(subscription: aio.Subscription[Event | aio.EventsMissed]) -> AsyncIterator[str]:
    async with subscription:
        yield ": subscribed\n\n"
        while True:
            try:
                async with asyncio.timeout(_KEEP_ALIVE_SECONDS):
                    event = await anext(subscription)
            except TimeoutError:
                yield ": still here\n\n"
                continue
            except BrokerError:  # the subscription was closed, by the end of the application say
                return
            yield _message(event)


def _message(event: Event | aio.EventsMissed) -> str:
    if isinstance(event, aio.EventsMissed):
        return f"event: missed\ndata: {json.dumps({'reason': event.reason})}\n\n"
    told = {"id": event.task_id, "task": event.task_name, "status": event.status, "result": event.result}
    return f"id: {event.id}\nevent: completion\ndata: {json.dumps(told)}\n\n"


async def _answer_wrong_input(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=422)


async def _answer_not_found(_request: Request, error: Exception) -> JSONResponse:
    return JSONResponse({"error": str(error)}, status_code=404)


async def _answer_unavailable(_request: Request, error: Exception) -> JSONResponse:
    """The broker or the store is away. If a task may have been queued all the same, its id is told."""
    task_id = error.task_id if isinstance(error, SendOutcomeUnknownError) else None
    return JSONResponse({"error": str(error), "id": task_id}, status_code=503)


for _wrong in (ApplicationError, ArgumentsError, MessageTooLargeError, TaskNameError):
    web.add_exception_handler(_wrong, _answer_wrong_input)
web.add_exception_handler(NotFoundError, _answer_not_found)
for _away in (BrokerError, SendOutcomeUnknownError, StoreError):
    web.add_exception_handler(_away, _answer_unavailable)
