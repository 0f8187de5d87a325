"""What a type checker says about users' code: wrong arguments are found before anything runs."""

from __future__ import annotations

import os
import textwrap
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from mypy import api

ROOT = Path(__file__).parents[2]
CONFIGURATION = f"""
    [mypy]
    strict = true
    mypy_path = {ROOT}
    follow_imports = silent

    # Only slow to read, and nothing in a signature that users see.
    [mypy-sqlalchemy.*,pika.*,msgpack.*,orjson.*]
    follow_imports = skip
    ignore_missing_imports = true
"""
PRELUDE = """
    from collections.abc import Coroutine
    from typing import Any, assert_type

    from limetask import Application, Task, TaskCall, TaskStatus, get_status, send_task, send_tasks, task

    @task
    def charge(app: Application, amount: int, currency: str = "EUR") -> float:
        return amount / 100

    @task(name="shop.notify", acks_late=True, qos="asap", time_limit=1.5)
    async def notify(app: Application, *, to: str) -> list[str]:
        return [to]

    class Shop:
        @property
        def identifier(self) -> str:
            return "shop"

    class ShopWithAttribute:
        identifier: str = "shop"

    class Anonymous:
        name = "shop"

    class Numbered:
        identifier = 3

    app = Application("shop")
"""
ACCEPTED = {
    "the application as a name": 'assert_type(charge.send("shop", 1, "USD"), TaskStatus)',
    "the application as limetask's own": "charge.send(app, 1)",
    "an object with a property": "charge.send(Shop(), 1)",
    "an object with an attribute": "charge.send(ShopWithAttribute(), 1)",
    "arguments by name": 'charge.send("shop", amount=1, currency="USD")',
    "a default left out": 'charge.send("shop", 1)',
    "an async task": 'assert_type(notify.send("shop", to="a"), TaskStatus)',
    "by name": 'assert_type(send_task("shop.charge", Shop(), 1, anything="goes"), TaskStatus)',
    "the task itself": 'assert_type(send_task(charge, "shop", 1), TaskStatus)',
    "a call in process": 'assert_type(charge(app, 1, "USD"), float)',
    "a call of an async task": 'assert_type(notify(app, to="a"), Coroutine[Any, Any, list[str]]).close()',
    "a prepared call": 'assert_type(charge.prepare("shop", 1), TaskCall)',
    "many prepared calls": (
        'assert_type(send_tasks([charge.prepare("shop", 1), notify.prepare(Shop(), to="a")]), list[TaskStatus])'
    ),
    "calls by name": 'send_tasks(TaskCall("shop.charge", "shop", (number,)) for number in range(3))',
    "waiting": 'assert_type(charge.send("shop", 1).wait(timeout=1.5), TaskStatus)',
    "refreshing": 'assert_type(charge.send("shop", 1).refresh(), TaskStatus)',
    "a status": 'assert_type(get_status("id", Shop()), TaskStatus)',
    "the type of a task": 'assert_type(charge.send("shop", 1).is_completed(), bool)',
    "a task in a variable": "anything: Task[Application, ..., float] = charge",
    "a status as a dict": 'assert_type(charge.send("shop", 1).to_dict(), dict[str, Any])',
    "an application of one's own": """
        @task
        def own(app: Shop, number: int) -> None: ...
        own.send("shop", 1)
        own(Shop(), 1)
    """,
    "a task without arguments": """
        @task()
        def nothing(app: Application) -> None: ...
        nothing.send("shop")
    """,
}
REJECTED = {
    "an argument of a wrong type": 'charge.send("shop", "1")',
    "a named argument of a wrong type": 'charge.send("shop", 1, currency=3)',
    "a missing argument": 'charge.send("shop")',
    "a missing named argument": 'notify.send("shop")',
    "an extra argument": 'charge.send("shop", 1, "USD", 2)',
    "an unknown named argument": 'charge.send("shop", 1, tax=2)',
    "a positional argument for a named one": 'notify.send("shop", "a")',
    "no application": "charge.send()",
    "a number for the application": "charge.send(3, 1)",
    "None for the application": "charge.send(None, 1)",
    "an object without an identifier": "charge.send(Anonymous(), 1)",
    "an identifier that is no text": "charge.send(Numbered(), 1)",
    "an object without an identifier, by name": 'send_task("shop.charge", Anonymous(), 1)',
    "an object without an identifier, for a status": 'get_status("id", Anonymous())',
    "a function that is no task": 'send_task(print, "shop")',
    "preparing with a wrong type": 'charge.prepare("shop", "1")',
    "preparing without an argument": 'charge.prepare("shop")',
    "sending what is no call": 'send_tasks([charge.send("shop", 1)])',
    "a call in process with a name for the application": 'charge("shop", 1)',
    "a call in process with a wrong type": 'charge(app, "1")',
    "the result of a call in process": "text: str = charge(app, 1)",
    "an unknown quality of service": '@task(qos="fast")\ndef urgent(app: Application) -> None: ...',
    "a name without a keyword": '@task("shop.named")\ndef named(app: Application) -> None: ...',
    "a task without an application": "@task\ndef lonely() -> None: ...",
    "an attribute that a status does not have": 'charge.send("shop", 1).state',
    "changing a status": 'charge.send("shop", 1).result = 3',
}


@cache
def errors_of_all() -> dict[str, list[str]]:
    """Have mypy check all snippets at once; return its errors by the snippet that they are in."""
    program = textwrap.dedent(PRELUDE)
    names: list[str] = [""] * program.count("\n")
    for name, snippet in (ACCEPTED | REJECTED).items():
        body = f"def snippet_{len(names)}() -> None:\n{textwrap.indent(textwrap.dedent(snippet).strip(), '    ')}\n"
        program += body
        names += [name] * body.count("\n")
    found: dict[str, list[str]] = {}
    for line in _mypy(program).splitlines():
        _, number, message = line.split(":", 2)
        if message.strip().startswith("error:"):
            found.setdefault(names[int(number) - 1], []).append(line)
    return found


def _mypy(program: str) -> str:
    with TemporaryDirectory() as folder:
        configuration, source = Path(folder, "mypy.ini"), Path(folder, "users_code.py")
        configuration.write_text(textwrap.dedent(CONFIGURATION))
        source.write_text(program)
        arguments = ["--config-file", str(configuration), "--cache-dir", os.devnull, "--no-error-summary", str(source)]
        output, complaints, _ = api.run(arguments)
    assert not complaints
    return output


def test_the_declarations_themselves_are_right() -> None:
    """Declaring tasks, bare and with options, plain and async, is right under `mypy --strict`."""
    assert errors_of_all().get("", []) == []


@pytest.mark.parametrize("name", ACCEPTED)
def test_right_code_is_accepted(name: str) -> None:
    """What works is right under `mypy --strict`, and has the type that is asserted."""
    assert errors_of_all().get(name, []) == []


@pytest.mark.parametrize("name", REJECTED)
def test_wrong_code_is_rejected(name: str) -> None:
    """What cannot work is an error on its own line."""
    assert errors_of_all().get(name, []) != []
