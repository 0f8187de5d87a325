"""Every error that limetask raises, as one tree.

LimetaskError
├── TaskFailure              raised by a task's own code: the task failed, with this message
├── SoftTimeLimitExceeded    raised in a task's own code when its soft time limit is over
├── NotFoundError            no such task for this application
├── WaitTimeoutError         (also TimeoutError) the task had not ended in time
├── ApplicationError         what was given as application is none
├── UsageError               (also TypeError and ValueError) a call with something that it cannot take
├── UnusableHereError        (also RuntimeError) a call at a place where it could not return, or not work
├── ConfigurationError       a setting that cannot be right
│   ├── BrokerUrlError
│   ├── StoreUrlError
│   └── StoreTooNewError     the store has the schema of a newer limetask
├── DeclarationError         a wrong @task or @event_handler
│   ├── TaskNameError
│   ├── DuplicateTaskError
│   ├── EventPatternError
│   └── DuplicateHandlerError
├── SendError                the task or event was not sent, or it is not known whether it was
│   ├── ArgumentsError       arguments that a message cannot carry
│   ├── MessageTooLargeError
│   │   └── TooLargeForBrokerError  (also BrokerRefusedError) the broker does not take as much
│   ├── EventError           an event's routing key or body is wrong
│   ├── SendOutcomeUnknownError  it may have been queued or not
│   └── PartlySentError      some of send_tasks' tasks
├── BrokerError              something between us and RabbitMQ
│   ├── BrokerUnreachableError
│   ├── BrokerRefusedError   wrong user, password, virtual host, permission or certificate
│   ├── ConnectionLostError  the connection closed before the broker confirmed
│   ├── UnroutableError      the broker has no queue for the message
│   └── NotConfirmedError    the broker refused the message (a full queue, say)
├── StoreError               the status store cannot be read or written
├── MessageRefusedError      a message that must not be run
├── ResultError              a result that is not JSON or is too large
└── UnknownApplicationError  raised by an application factory: no such application
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from limetask.status import TaskStatus


class LimetaskError(Exception):
    """The base of every error that limetask raises on purpose."""


class TaskFailure(LimetaskError):  # noqa: N818 - the documented name
    """Raise it in a task to end it as FAILURE, with this message as the task's result."""


class SoftTimeLimitExceeded(LimetaskError):  # noqa: N818 - the name that users of other systems know
    """Raised in a task's body when its `soft_time_limit` is over: clean up and end, or be cut off later."""


class NotFoundError(LimetaskError):
    """This application has no task with that id: it is malformed, unknown, expired or another's."""


class WaitTimeoutError(LimetaskError, TimeoutError):
    """A task had not ended when the timeout of `wait` or `wait_all` was over. It goes on all the same.

    `statuses` has the newest known status of each task that was waited for, in the order in which they were given.
    """

    def __init__(self, message: str, statuses: Sequence[TaskStatus] = ()) -> None:
        super().__init__(message)
        self.statuses = list(statuses)

    def __reduce__(self) -> tuple[type[WaitTimeoutError], tuple[str, list[TaskStatus]]]:
        return type(self), (str(self), self.statuses)


class ApplicationError(LimetaskError):
    """What was given as the application is neither a name nor an object with an `identifier`."""


class UsageError(LimetaskError, TypeError, ValueError):
    """A function of limetask was called with something that it cannot take."""


class UnusableHereError(LimetaskError, RuntimeError):
    """limetask was called at a place where the call could not return, or not work. Nothing was sent.

    In limetask's own thread (by a logging handler, say), while Python shuts down, without a running asyncio loop
    (`limetask.aio`), or by a signal handler that has interrupted the same call.
    """


class ConfigurationError(LimetaskError):
    """A setting has a value that cannot be right."""


class BrokerUrlError(ConfigurationError):
    """The broker's URL is not an AMQP URL."""


class StoreUrlError(ConfigurationError):
    """The status store's URL is not one that limetask can open."""


class StoreTooNewError(ConfigurationError):
    """The status store has the schema of a newer limetask than the one that is to write there."""


class DeclarationError(LimetaskError):
    """A task or an event handler is declared in a way that cannot work."""


class TaskNameError(DeclarationError):
    """A task's name is empty, has no dot, is too long or has characters that a routing key cannot carry."""


class DuplicateTaskError(DeclarationError):
    """Two different functions are declared under one task name."""


class EventPatternError(DeclarationError):
    """A pattern of events is one that the broker would refuse, or that no event can fit."""


class DuplicateHandlerError(DeclarationError):
    """Two different functions are declared as event handlers under one name."""


class SendError(LimetaskError):
    """A task could not be sent."""


class ArgumentsError(SendError):
    """A task's arguments hold something that a message cannot carry."""


class MessageTooLargeError(SendError):
    """A task's arguments, or an event, are larger than a message may be. Nothing was sent."""


class EventError(SendError):
    """An event cannot be published: its routing key or its body is wrong."""


class SendOutcomeUnknownError(SendError):
    """The broker did not confirm a task or an event within the deadline, or the connection closed before it could.

    It may be there all the same: `task_id` tells which task to look for, and is the event's id for an event.
    """

    def __init__(self, message: str, task_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id

    def __reduce__(self) -> tuple[type[SendOutcomeUnknownError], tuple[str, str]]:
        return type(self), (str(self), self.task_id)


class PartlySentError(SendError):
    """Only some of the tasks given to `send_tasks` were confirmed.

    `sent` holds the status of each that was; `unconfirmed` of each that was not, or of which that is not known.
    """

    def __init__(self, message: str, sent: Sequence[TaskStatus], unconfirmed: Sequence[TaskStatus]) -> None:
        super().__init__(message)
        self.sent = list(sent)
        self.unconfirmed = list(unconfirmed)

    def __reduce__(self) -> tuple[type[PartlySentError], tuple[str, list[TaskStatus], list[TaskStatus]]]:
        return type(self), (str(self), self.sent, self.unconfirmed)


class BrokerError(LimetaskError):
    """RabbitMQ could not be used."""


class BrokerUnreachableError(BrokerError):
    """Nothing that speaks AMQP answers at the broker's address."""


class BrokerRefusedError(BrokerError):
    """The broker refuses us: user, password, virtual host, permission or a differing queue; or we its certificate."""


class TooLargeForBrokerError(MessageTooLargeError, BrokerRefusedError):
    """A message is larger than the broker takes (`max_message_size` in rabbitmq.conf). It has not got it."""


class ConnectionLostError(BrokerError):
    """The connection closed before the broker confirmed. The message may have arrived or not."""


class UnroutableError(BrokerError):
    """The broker has no queue for the message and returned it."""


class NotConfirmedError(BrokerError):
    """The broker refused to take the message."""


class StoreError(LimetaskError):
    """The status store could not be read or written."""


class MessageRefusedError(LimetaskError):
    """A message that is not a task which may run here: foreign, undecodable or inconsistent."""


class ResultError(LimetaskError):
    """A task returned what JSON cannot express, or more than the limit."""


class UnknownApplicationError(LimetaskError):
    """Raise it in an application factory when no application has that identifier."""
