"""What the user of LIMETASK_BROKER_URL may do: told as what it can be used for."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from limetask.amqp.permissions import Permissions, ask_permissions
from limetask.doctor.finding import Finding
from limetask.errors import BrokerUnreachableError
from limetask.message import completion_key
from limetask.settings import Settings
from limetask.status import Status
from limetask.topology import QOS_CATEGORIES, Names

_ASK_SECONDS = 20.0
_DEFAULT_EXCHANGE = ""
# What `write` and `read` are told as in rabbitmqctl's patterns.
_DEFAULT_EXCHANGE_NAME = "amq.default"
_WHERE = "docs/security.md, Users and permissions, has the commands"


@dataclass(frozen=True, slots=True)
class Permitted:
    """What a user may do in one namespace: the exchanges it may write to, and the queues it may read from."""

    user: str
    writes: frozenset[str]
    reads: frozenset[str]
    reply_queue: bool
    declares: bool

    @property
    def to_default_exchange(self) -> bool:
        """Whether the user may put a message into a queue by its name, as the try of the recorder does."""
        return _DEFAULT_EXCHANGE in self.writes


@dataclass(frozen=True, slots=True)
class _Use:
    """Something to use a user for, and what that needs."""

    name: str
    writes: frozenset[str]
    reads: frozenset[str] = frozenset()
    reply_queue: bool = False
    declares: bool = False

    def lacks(self, permitted: Permitted) -> list[str]:
        """Return what a user needs for this and does not have."""
        exchanges = sorted(exchange or _DEFAULT_EXCHANGE_NAME for exchange in self.writes - permitted.writes)
        return (
            [f"write to {exchange}" for exchange in exchanges]
            + [f"read from {queue}" for queue in sorted(self.reads - permitted.reads)]
            + ["have a reply queue of its own"] * (self.reply_queue and not permitted.reply_queue)
            + ["declare"] * (self.declares and not permitted.declares)
        )


def look_at_permissions(settings: Settings) -> Permitted:
    """Ask the broker, whose exchanges and queues are there, what the user may do; raises BrokerError."""
    return asyncio.run(_ask(settings, Names(settings.namespace)))


def examine_permissions(permitted: Permitted, names: Names) -> Finding:
    """Tell what a user may do, and what it lacks for what it seems to be for."""
    can = [use.name for use in _uses(names, permitted) if not use.lacks(permitted)]
    cannot = [use.name for use in _uses(names, permitted) if use.lacks(permitted)]
    text = f"user {permitted.user!r} may {_listed(can, 'and') or 'do nothing of what limetask needs'}"
    if can and cannot:
        text += f"; it may not {_listed(cannot, 'or')}"
    return Finding("permissions", text, _remedy(permitted, names))


async def _ask(settings: Settings, names: Names) -> Permitted:
    try:
        async with asyncio.timeout(_ASK_SECONDS), ask_permissions(settings, "doctor") as permissions:
            return await _answers(permissions, names)
    except TimeoutError:
        raise BrokerUnreachableError(
            f"the broker has not answered for {_ASK_SECONDS:g} s. `rabbitmqctl status` shows whether it is out of "
            "memory or disk space"
        ) from None


async def _answers(permissions: Permissions, names: Names) -> Permitted:
    queues = [*_task_queues(names), names.results_queue, names.dead_queue]
    return Permitted(
        permissions.user,
        frozenset([exchange for exchange, key in _ways_to_write(names) if await permissions.may_write(exchange, key)]),
        frozenset([queue for queue in queues if await permissions.may_read(queue)]),
        await permissions.may_have_reply_queue(names.events_exchange, names.reply_key("doctor")),
        all([await permissions.may_declare(queue) for queue in queues]),
    )


def _ways_to_write(names: Names) -> list[tuple[str, str]]:
    """Every exchange with a routing key; where limetask uses topics, one that a real event has."""
    return [
        (names.tasks_exchange, names.task_queue("default")),
        (names.completions_exchange, completion_key("limetask.doctor", Status.SUCCESS)),
        (names.events_exchange, completion_key("limetask.doctor", Status.SUCCESS)),
        (names.dead_exchange, ""),
        (_DEFAULT_EXCHANGE, names.results_queue),
    ]


def _task_queues(names: Names) -> list[str]:
    return [names.task_queue(qos) for qos in QOS_CATEGORIES]


def _uses(names: Names, permitted: Permitted) -> list[_Use]:
    """All that a user can be for."""
    tasks = frozenset([names.tasks_exchange])
    direct = frozenset([_DEFAULT_EXCHANGE])
    dead = frozenset([names.dead_exchange])
    return [
        _Use("send tasks", tasks),
        _Use("hear of their ends at once", frozenset(), reply_queue=True),
        _run_tasks(names, permitted),
        _Use("record statuses", direct | dead, frozenset([names.results_queue])),
        _Use("handle dead letters", tasks | direct, frozenset([names.dead_queue])),
        _Use("declare queues", frozenset(), declares=True),
    ]


def _run_tasks(names: Names, permitted: Permitted) -> _Use:
    """What running tasks needs: `--queues` lets a worker do with some of the queues."""
    queues = frozenset(_task_queues(names))
    ends = frozenset([names.completions_exchange, names.events_exchange])
    everywhere = ends | {names.tasks_exchange, names.dead_exchange, _DEFAULT_EXCHANGE}
    return _Use("run tasks", everywhere, queues & permitted.reads or queues, reply_queue=True)


def _remedy(permitted: Permitted, names: Names) -> str:
    send, _, run, record, *_ = _uses(names, permitted)
    takes_tasks = bool(permitted.reads.intersection(_task_queues(names)))
    if takes_tasks and (lacking := run.lacks(permitted)):
        return f"it may take tasks, and to run them it must also {_listed(lacking, 'and')}: {_WHERE}"
    if all(use.lacks(permitted) for use in (send, run, record)):
        return f"give the user the permissions of what it is for: {_WHERE}"
    return ""


def _listed(parts: list[str], word: str) -> str:
    """Return `one, two and three`."""
    *first, last = parts or [""]
    return f"{', '.join(first)} {word} {last}" if first else last
