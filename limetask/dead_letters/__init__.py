"""Dead letters: the messages that were set aside, to be looked at, retried or purged.

Two kinds are in the queue of dead letters. Workers publish what must not run there, with a reason of their own. And
the broker moves what was returned to its queue too often, with its reason in `x-death`.

    from limetask import dead_letters

    for letter in dead_letters.list_dead_letters(dead_letters.DeadLetterFilter(task="shop.*")):
        print(letter.id, letter.task_name, letter.reason)
    dead_letters.retry([letter.id])

Every function opens connections of its own for the time of its call and returns when they are closed. They can be
called in any thread, but not where an asyncio loop runs already: there, use `asyncio.to_thread`.
"""

from limetask.dead_letters.choice import ALL, DeadLetterFilter, Selection
from limetask.dead_letters.letter import DeadLetter, DeadLetterContent, Kind
from limetask.dead_letters.operations import Outcome, Progress, list_dead_letters, purge, retry, show

__all__ = [
    "ALL",
    "DeadLetter",
    "DeadLetterContent",
    "DeadLetterFilter",
    "Kind",
    "Outcome",
    "Progress",
    "Selection",
    "list_dead_letters",
    "purge",
    "retry",
    "show",
]
