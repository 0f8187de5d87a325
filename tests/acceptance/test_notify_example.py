"""The example `notify`: a real worker, a real mail server, and a task that fails."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from pathlib import Path
from typing import Any

from aiosmtpd.controller import Controller

from limetask import Settings, Status, send_task
from tests.waiting import eventually
from tests.worker import Worker

EXAMPLES = Path(__file__).parents[2] / "examples"
TASK = "notify.tasks.import_prices"
WAIT = 30.0


class Mailbox:
    """What a mail server has got."""

    def __init__(self) -> None:
        self.mails: list[EmailMessage] = []

    async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        """Keep one e-mail."""
        mail = message_from_bytes(envelope.content, policy=default)
        assert isinstance(mail, EmailMessage)
        self.mails.append(mail)
        return "250 OK"

    def wait_for(self, count: int) -> list[EmailMessage]:
        """Return all e-mails once there are `count`."""
        eventually(lambda: len(self.mails) >= count, WAIT, f"{count} e-mails")
        return self.mails


@contextmanager
def mail_server(port: int) -> Iterator[Mailbox]:
    """A mail server on this machine."""
    mailbox = Mailbox()
    controller = Controller(mailbox, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        yield mailbox
    finally:
        controller.stop()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def environment(port: int) -> dict[str, str]:
    """The environment in which the example runs, as its README says."""
    return {
        "PYTHONPATH": str(EXAMPLES),
        "NOTIFY_SMTP_HOST": "127.0.0.1",
        "NOTIFY_SMTP_PORT": str(port),
        "NOTIFY_FROM": "limetask@example.com",
        "NOTIFY_TO": "operator@example.com",
    }


def test_a_failed_task_sends_an_e_mail(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """The e-mail arrives with the task's name, the application and the error; a success sends none."""
    port = free_port()
    start_worker(settings, "notify", "--processes", "1", **environment(port))
    with mail_server(port) as mailbox:
        done = send_task(TASK, "nordic-foods", "2026-10-03")
        assert done.wait(WAIT).status is Status.SUCCESS
        failed = send_task(TASK, "alpine-tools", "2026-10-03")
        [mail] = mailbox.wait_for(1)
    assert (mail["From"], mail["To"]) == ("limetask@example.com", "operator@example.com")
    assert mail["Subject"] == f"{TASK} failed for alpine-tools"
    assert "TaskFailure: there is no price list for 2026-10-03" in mail.get_content()
    assert failed.id in mail.get_content()


def test_the_e_mail_comes_when_the_mail_server_is_back(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """A failure is not forgotten while the mail server is away: its event is tried again."""
    port = free_port()
    worker = start_worker(settings, "notify", "--processes", "1", **environment(port))
    send_task(TASK, "alpine-tools", "2026-10-04")
    eventually(lambda: "ConnectionRefusedError" in worker.log, WAIT, "the first attempt, in the worker's log")
    with mail_server(port) as mailbox:
        [mail] = mailbox.wait_for(1)
    assert "2026-10-04" in mail.get_content()


def test_a_failure_waits_for_a_worker(settings: Settings, start_worker: Callable[..., Worker]) -> None:
    """What fails while nobody runs the handler is kept for it."""
    port = free_port()
    assert start_worker(settings, "notify", "--processes", "1", **environment(port)).stop() == 0
    start_worker(settings, "notify", "--processes", "1", "--roles", "tasks,recorder", **environment(port))
    assert send_task(TASK, "alpine-tools", "2026-10-05").wait(WAIT).status is Status.FAILURE
    with mail_server(port) as mailbox:
        start_worker(settings, "notify", "--roles", "events", **environment(port))
        [mail] = mailbox.wait_for(1)
    assert "2026-10-05" in mail.get_content()
