"""What the headers of a dead letter tell: of its death, and of the message that it was before.

They may be of a worker, of the broker or of anybody else: nothing here fails, whatever is in them. Whoever may only
send tasks can have the broker set a message aside that looks like a worker's letter, and a retry would hand it to the
recorder or to a handler. A worker's own is told from it by what no sender can take away: the broker notes each death in
`x-death`, and it tells the exchange that a message has come through.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from limetask.message import Envelope, MessageKind

_BROKER_REASONS = {
    "delivery_limit": "delivery_limit: returned to its queue too often",
    "rejected": "rejected: a consumer refused it",
    "expired": "expired: it waited too long in its queue",
    "maxlen": "maxlen: its queue was full",
}
# A message that passes a level of a delay expires there, which is no death.
_DELAY_LEVEL = re.compile(r"\.delay\.\d+$")
# What a retried message carries of its past, should it die again.
_FIRST_DIED_AT = "first_died_at"
_DEATHS = "deaths"


@dataclass(frozen=True, slots=True)
class Death:
    """How a message died, as its letter tells."""

    reason: str
    queue: str | None = None
    first: datetime | None = None
    last: datetime | None = None
    count: int = 1


def death_of(envelope: Envelope, message: Envelope, *, was_set_aside: bool = True) -> Death:
    """Return how a message died, from its letter and from the message that it was before.

    `was_set_aside` is False if neither a worker nor a queue has put it there: no queue was there for it.
    """
    if not was_set_aside:
        death = _death_after_delay(envelope)
    elif _is_from_a_worker(envelope):
        death = _death_told_by_worker(envelope)
    else:
        death = _death_told_by_broker(envelope)
    return _with_former_deaths(death, message)


def with_past(envelope: Envelope, deaths: int, first_died_at: datetime | None) -> Envelope:
    """Return a retried message with a note of the deaths before it."""
    past: dict[str, Any] = {_DEATHS: deaths}
    if first_died_at is not None:
        past[_FIRST_DIED_AT] = first_died_at.isoformat()
    return replace(envelope, headers={**(envelope.headers or {}), **past})


def message_of(envelope: Envelope, *, was_set_aside: bool = True) -> Envelope:
    """Return the message as it was before it died; `was_set_aside` is as in `death_of`."""
    headers = envelope.headers or {}
    if not was_set_aside or not _is_from_a_worker(envelope):
        return replace(envelope, headers=without_the_brokers(headers))
    return replace(envelope, kind=text(headers.get("kind")), headers=_mapping(headers.get("original")))


def without_the_brokers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return headers without those that the broker adds."""
    # A name that is no UTF-8 arrives as bytes.
    return {name: value for name, value in headers.items() if not (isinstance(name, str) and name.startswith("x-"))}


def broker_deaths(envelope: Envelope) -> list[Mapping[str, Any]]:
    """Return what the broker has noted in `x-death`, the newest death first; levels of delays are none."""
    return [death for death in _departures(envelope) if not _is_of_delay(death)]


def _departures(envelope: Envelope) -> list[Mapping[str, Any]]:
    told = (envelope.headers or {}).get("x-death")
    return [_mapping(death) for death in told] if isinstance(told, list) else []


def _is_of_delay(departure: Mapping[str, Any]) -> bool:
    return _DELAY_LEVEL.search(text(departure.get("queue")) or "") is not None


def _is_from_a_worker(envelope: Envelope) -> bool:
    headers = envelope.headers or {}
    return envelope.kind == MessageKind.DEAD_LETTER and "limetask" in headers and "x-death" not in headers


def _death_told_by_worker(envelope: Envelope) -> Death:
    headers = envelope.headers or {}
    died_at = _moment(headers.get("died_at"))
    return Death(text(headers.get("reason")) or "unknown", text(headers.get("queue")), died_at, died_at)


def _death_told_by_broker(envelope: Envelope) -> Death:
    deaths = broker_deaths(envelope)
    if not deaths:
        return _death_after_delay(envelope)
    last = deaths[0]  # the broker puts the newest first
    reason = text(last.get("reason")) or "unknown"
    moments = sorted(moment for moment in (_moment(death.get("time")) for death in deaths) if moment is not None)
    return Death(
        reason=_BROKER_REASONS.get(reason, reason),
        queue=text(last.get("queue")),
        first=moments[0] if moments else None,
        last=moments[-1] if moments else None,
        count=sum(number(death.get("count")) or 1 for death in deaths),
    )


def _death_after_delay(envelope: Envelope) -> Death:
    delays = [departure for departure in _departures(envelope) if _is_of_delay(departure)]
    if not delays:
        return Death("unknown: neither a worker nor the broker has set it aside")
    over_at = _moment(delays[0].get("time"))
    return Death(
        "unroutable: when its delay was over, the queue for which it was meant was gone", first=over_at, last=over_at
    )


def _with_former_deaths(death: Death, message: Envelope) -> Death:
    """Add the deaths of earlier attempts, which a retry has noted in the message."""
    headers = message.headers or {}
    former = number(headers.get(_DEATHS)) or 0
    return replace(death, first=_moment(headers.get(_FIRST_DIED_AT)) or death.first, count=former + death.count)


def text(value: object) -> str | None:
    """Return a text that is not empty; None for anything else."""
    return value if isinstance(value, str) and value else None


def number(value: object) -> int | None:
    """Return a whole number that is not negative; None for anything else."""
    return int(value) if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _moment(value: object) -> datetime | None:
    """Return a time in UTC, from the broker's timestamp or a worker's text; None if it is neither."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
        if not isinstance(moment, datetime):
            return None
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
