"""Whether queues are used by anybody: looked at for long enough to be sure, since what is deleted is gone.

The broker answers 0 messages and 0 consumers for a quorum queue whose leader does not answer it: for half a second when
a node was killed, for some twelve when it hangs, and whenever a leader takes more than a quarter of a second. It cannot
delete a quorum queue only if it is unused.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass, field

from limetask.amqp import Connection

LOOK_SECONDS = 15.0
"""So long a queue is looked at that shows nothing but zeros."""

_LOOK_AGAIN_SECONDS = 0.5
_ANSWER_SECONDS = 5.0
# Numbers above zero come from the leader itself. A consumer may be on its way back after a lost connection.
_SURE_LOOKS = 2


@dataclass(slots=True)
class Use:
    """What has been seen of some queues: each is in one of these in the end."""

    missing: set[str] = field(default_factory=set)
    consumed: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)
    in_doubt: set[str] = field(default_factory=set)


async def look_for_use(connection: Connection, queues: Collection[str], seconds: float = LOOK_SECONDS) -> Use:
    """Return which of these queues somebody consumes from, and which surely nobody does.

    One that holds messages is looked at twice, and one that seems to be empty for `seconds`: it is unused if no look
    has found a consumer and it then says itself that it is empty. Raises BrokerError.
    """
    use = Use()
    looks: dict[str, int] = dict.fromkeys(queues, 0)
    deadline = asyncio.get_running_loop().time() + seconds
    while looks:
        for queue in tuple(looks):
            counts = await connection.find_queue(queue)
            if counts is None:
                use.missing.add(queue)
            elif counts[1]:
                use.consumed.add(queue)
            elif counts[0] and looks[queue] + 1 == _SURE_LOOKS:
                use.unused.add(queue)
            else:
                looks[queue] += bool(counts[0])
                continue
            del looks[queue]
        if asyncio.get_running_loop().time() >= deadline:
            break
        await asyncio.sleep(_LOOK_AGAIN_SECONDS if looks else 0.0)
    for queue, looks_with_messages in looks.items():
        is_sure = not looks_with_messages and await _says_it_is_empty(connection, queue)
        (use.unused if is_sure else use.in_doubt).add(queue)
    return use


async def _says_it_is_empty(connection: Connection, queue: str) -> bool:
    try:
        async with asyncio.timeout(_ANSWER_SECONDS):
            return await connection.is_empty(queue)
    except TimeoutError:
        return False
