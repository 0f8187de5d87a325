"""The event handler. `limetask-worker notify` finds it by itself, and runs it in a process of its own."""

from __future__ import annotations

import os
import smtplib
from email.message import EmailMessage

from limetask import Application, Event, Retry, event_handler, on_failure

# A worker that is not told where to send does not start, instead of failing at the first e-mail.
_SENDER = os.environ["NOTIFY_FROM"]
_RECEIVER = os.environ["NOTIFY_TO"]
_SMTP_HOST = os.environ.get("NOTIFY_SMTP_HOST", "localhost")
_SMTP_PORT = int(os.environ.get("NOTIFY_SMTP_PORT", "25"))


@event_handler(on_failure("notify.tasks.*"), retry=Retry(times=20, delay=1.0))
def send_mail(app: Application, event: Event) -> None:
    """Tell a person. While the mail server is away the event is kept and tried again, later and later."""
    with smtplib.SMTP(_SMTP_HOST, _SMTP_PORT, timeout=30) as server:
        server.send_message(_mail(app, event))


def _mail(app: Application, event: Event) -> EmailMessage:
    mail = EmailMessage()
    mail["Subject"] = f"{event.task_name} failed for {app.identifier}"
    mail["From"] = _SENDER
    mail["To"] = _RECEIVER
    mail["Message-ID"] = f"<{event.id}@limetask.example>"  # the same if the event comes twice
    mail.set_content(f"{_error(event)}\n\nThe task's id is {event.task_id}. It ended at {event.finished_at}.\n")
    return mail


def _error(event: Event) -> str:
    return f"{event.error.type}: {event.error.message}" if event.error else "It does not say why."
