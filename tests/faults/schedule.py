"""What a torture does, and when: the same for the same seed. Pure."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

Act = Literal["STOP", "KILL"]
Target = Literal["supervisor", "recorder", "task process", "everything"]

_PAUSE_SECONDS = (0.3, 2.0)
_KILLS = 0.3  # of all deeds; the others are stops
_LONG_STOPS = 0.15
_TARGETS: tuple[Target, ...] = ("supervisor", "recorder", "task process", "task process", "everything")


@dataclass(frozen=True, slots=True)
class Deed:
    """`at` so many seconds after the beginning this is done to a process of a daemon, or to all of its processes.

    `which` is a number from 0 to 1: of several processes of the kind, the one at this share of their list. What is
    stopped goes on after `seconds`.
    """

    at: float
    act: Act
    daemon: int
    target: Target
    which: float
    seconds: float

    def __str__(self) -> str:
        duration = f" for {self.seconds:.1f} s" if self.act == "STOP" else ""
        return f"{self.at:6.1f} s: {self.act} {self.target} of daemon {self.daemon}{duration}"


@dataclass(frozen=True, slots=True)
class Order:
    """A task to be sent: its kind, and how long its body takes."""

    kind: str
    seconds: float


def schedule(seed: int, seconds: float, daemons: int, worker_timeout: float) -> list[Deed]:
    """Return what to do in a time.

    A stop is either well below the time after which a silent worker counts as dead, or well above it: what is right
    in between depends on the moment of the last sign of life.
    """
    return list(_deeds(random.Random(f"deeds {seed}"), seconds, daemons, worker_timeout))


def _deeds(choice: random.Random, seconds: float, daemons: int, worker_timeout: float) -> Iterator[Deed]:
    at = choice.uniform(*_PAUSE_SECONDS)
    while at < seconds:
        yield Deed(
            at=at,
            act="KILL" if choice.random() < _KILLS else "STOP",
            daemon=choice.randrange(daemons),
            target=choice.choice(_TARGETS),
            which=choice.random(),
            seconds=_stop_seconds(choice, worker_timeout),
        )
        at += choice.uniform(*_PAUSE_SECONDS)


def _stop_seconds(choice: random.Random, worker_timeout: float) -> float:
    if choice.random() < _LONG_STOPS:
        return choice.uniform(1.3, 1.6) * worker_timeout
    return choice.uniform(0.01, 0.4) * worker_timeout


def orders(seed: int, kinds: Sequence[str]) -> Iterator[Order]:
    """Give tasks without end: most of them short, some of up to ten seconds."""
    choice = random.Random(f"orders {seed}")
    while True:
        longest = choice.choices((0.0, 0.5, 3.0, 10.0), (20, 50, 20, 10))[0]
        yield Order(choice.choice(kinds), choice.uniform(0.0, longest))
