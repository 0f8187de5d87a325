"""Whether the clocks agree: of the producers, the workers, the database and this machine."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

from limetask.doctor.finding import Finding
from limetask.store import Store, TaskTimes

TOLERANCE = timedelta(seconds=1)

_NEWEST_ROWS = 500
_RECENT = timedelta(days=1)
_COMPARISONS = 3
_SHOWN_HOSTS = 5
_BREAKS = "the times of statuses contradict each other, and they expire that much too early or too late"


def examine_clocks(store: Store) -> Iterator[Finding]:
    """Compare the times of the newest tasks, and the database's clock with this machine's; raises StoreError."""
    recent = store.newest_times(_NEWEST_ROWS, datetime.now(UTC) - _RECENT)
    yield _examine_times(recent, datetime.now(UTC))
    offset = _offset_of_database(store)
    if offset is not None:
        yield _examine_database(*offset)


def _examine_times(recent: Iterable[TaskTimes], now: datetime) -> Finding:
    started = [times for times in recent if times.started_at is not None and times.worker is not None]
    faults = [*_behind_producers(started), *_ahead_of_here(started, now)]
    if faults:
        return Finding("clocks of the hosts", f"{'; '.join(faults)}. So {_BREAKS}", _remedy("the hosts named"))
    if not started:
        text = "no task was sent and started within a day, so there is nothing to compare"
        return Finding("clocks of the hosts", text, is_checked=False)
    text = f"of the newest {len(started):,} tasks none started before it was sent, or in the future"
    return Finding("clocks of the hosts", text)


def _behind_producers(started: Iterable[TaskTimes]) -> Iterator[str]:
    """Tell of workers that started a task before it was sent. A task that waited hides as much of a difference."""
    largest: dict[str, timedelta] = {}
    for times in started:
        host, ahead = _host(times.worker), times.sent_at - (times.started_at or times.sent_at)
        largest[host] = max(ahead, largest.get(host, timedelta()))
    for host, difference in _worst(largest):
        yield (
            f"tasks started on {host} up to {_seconds(difference)} before they were sent: its clock is behind, or that "
            "of the producers ahead"
        )


def _ahead_of_here(started: Iterable[TaskTimes], now: datetime) -> Iterator[str]:
    """Tell of producers and workers whose times lie in the future of this machine."""
    largest: dict[str, timedelta] = {}
    for times in started:
        for whose, moment in ((_host(times.worker), times.started_at), ("a producer", times.sent_at)):
            largest[whose] = max((moment or now) - now, largest.get(whose, timedelta()))
    for whose, difference in _worst(largest):
        yield f"the clock of {whose} is at least {_seconds(difference)} ahead of this machine's"


def _worst(differences: dict[str, timedelta]) -> list[tuple[str, timedelta]]:
    wrong = [(whose, difference) for whose, difference in differences.items() if difference > TOLERANCE]
    return sorted(wrong, key=lambda one: one[1], reverse=True)[:_SHOWN_HOSTS]


def _host(worker: str | None) -> str:
    """Return the host in a worker's name, which has process id and more after it."""
    return (worker or "").rsplit(".", 3)[0]


def _offset_of_database(store: Store) -> tuple[timedelta, timedelta] | None:
    """Return how far the database's clock is ahead of this machine's and how exact that is; None if it has none.

    The answer left the database at some moment between question and answer: the shortest round trip tells most.
    """
    best: tuple[timedelta, timedelta] | None = None
    for _ in range(_COMPARISONS):
        asked = datetime.now(UTC)
        clock = store.clock()
        answered = datetime.now(UTC)
        if clock is None:
            return None
        half = (answered - asked) / 2
        if best is None or half < best[1]:
            best = clock - asked - half, half
    return best


def _examine_database(ahead: timedelta, uncertainty: timedelta) -> Finding:
    check = "clock of the database"
    if abs(ahead) <= TOLERANCE + uncertainty:
        exactly = max(abs(ahead), uncertainty)
        return Finding(check, f"it and this machine's differ by {_seconds(exactly)} at most")
    side = "ahead of" if ahead > timedelta() else "behind"
    text = f"it is {_seconds(abs(ahead))} {side} this machine's. If it is this machine that is wrong, {_BREAKS}"
    return Finding(check, text, _remedy("this host and the database's"))


def _remedy(hosts: str) -> str:
    return f"synchronise the clocks of {hosts} (chrony or systemd-timesyncd; `timedatectl` shows whether it does)"


def _seconds(difference: timedelta) -> str:
    seconds = difference.total_seconds()
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:,.0f} s"
