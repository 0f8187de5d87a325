"""What the broker says when it refuses something, with what that means and what to do about it.

Its texts are the same in RabbitMQ 3.10 to 4.3; one that is not known here is passed on as it is.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping

_Fields = Mapping[str, str]


def explain_refusal(reply_text: str) -> str:
    """Return our words for the text of a refusal, with that text at the end."""
    for pattern, tell in _KNOWN:
        if found := pattern.search(reply_text):
            return f"{tell(found.groupdict())} (the broker refused: {reply_text})"
    return f"the broker refused: {reply_text}"


def _differs(said: _Fields) -> str:
    kind, name = said["kind"], said["name"]
    return (
        f"{kind} {name!r} is there already, and its {said['argument']} is not limetask's: there it is "
        f"{_plain(said['current'])}, limetask has {_plain(said['wanted'])}. Another program or another version made "
        f"it, and limetask changes nothing that is there. {_way_to_delete(kind, name, said['vhost'])}, and it is made "
        "again; or set LIMETASK_NAMESPACE to another name for everything"
    )


def _way_to_delete(kind: str, name: str, vhost: str) -> str:
    if kind == "queue":
        command = shlex.join(["rabbitmqctl", "delete_queue", "-p", vhost, name])
        return f"If nothing is lost with the messages in it, delete it with `{command}`"
    return "Delete it, for example in the management interface"


def _plain(value: str) -> str:
    """Return a value without the broker's words around it, as in "the value '5' of type 'signedint'"."""
    quoted = re.search(r"'(.*?)'", value)
    return quoted[1] if quoted else "not set" if value == "none" else value


def _missing(said: _Fields) -> str:
    return (
        f"{said['kind']} {said['name']!r} is missing in virtual host {said['vhost']!r}: `limetask setup` makes what is "
        "missing, and so does every process that connects anew"
    )


def _locked(said: _Fields) -> str:
    return (
        f"queue {said['name']!r} in virtual host {said['vhost']!r} belongs to another connection alone: end the "
        "program that made it, or set LIMETASK_NAMESPACE to another name for everything"
    )


def _timed_out(said: _Fields) -> str:
    return (
        "a message was not acked for longer than the broker allows, which is "
        f"{int(said['milliseconds']) / 1000:g} s: raise consumer_timeout in rabbitmq.conf, or set "
        "LIMETASK_CONSUMER_TIMEOUT to it: late-ack tasks and event handlers that take longer are then cut off in time"
    )


def _unsupported(said: _Fields) -> str:
    return (
        f"the broker does not support what {said['kind']} {said['name']!r} needs: limetask runs on RabbitMQ 3.10 to "
        "4.3, with quorum queues"
    )


_PLACE = r"(?P<kind>queue|exchange) '(?P<name>.*)' in vhost '(?P<vhost>.*?)'"
_VALUES = r"received (?P<wanted>.+) but current is (?P<current>.+)"
_KNOWN: tuple[tuple[re.Pattern[str], Callable[[_Fields], str]], ...] = (
    (re.compile(rf"inequivalent arg '(?P<argument>.*?)' for {_PLACE}: {_VALUES}"), _differs),
    (re.compile(rf"no {_PLACE}"), _missing),
    (re.compile(rf"locked {_PLACE}"), _locked),
    (re.compile(r"acknowledgement on channel \d+ timed out. Timeout value used: (?P<milliseconds>\d+)"), _timed_out),
    (re.compile(rf"invalid (property|arg) '.*?' for {_PLACE}"), _unsupported),
)
