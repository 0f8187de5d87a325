"""aio-pika's errors, told as ours: in the same words as pika's, see `limetask.amqp.faults`."""

from __future__ import annotations

import asyncio
import ssl
from typing import Any

from aio_pika import exceptions as aio_pika_errors
from aiormq import exceptions as aiormq_errors
from aiormq import spec

from limetask.amqp.faults import (
    CERTIFICATE_ALERT,
    HANDSHAKE_TOO_SLOW,
    NO_SIGN_OF_LIFE,
    SPEAKS_NO_TLS,
    certificate_refused,
    channel_closed,
    hung_up,
    is_lasting,
    not_let_in,
    refused_permission,
    refused_user,
    refused_vhost,
    unreachable,
    untrusted_certificate,
)
from limetask.errors import BrokerError, ConnectionLostError, NotConfirmedError, UnroutableError


def map_error(error: BaseException, parameters: Any) -> BrokerError:
    """Return our error for one of aio-pika's or aiormq's, on a connection that was open."""
    match error:
        case BrokerError() as own:
            return own
        case aiormq_errors.PublishError():
            return UnroutableError("the broker has no queue for the message")
        case aiormq_errors.DeliveryError():
            return NotConfirmedError("the broker refused the message: a queue is full or unavailable")
        case aiormq_errors.ChannelAccessRefused() as refused:
            return refused_permission(_text_of(refused))
        case (
            aiormq_errors.ChannelNotFoundEntity()
            | aiormq_errors.ChannelLockedResource()
            | aiormq_errors.ChannelPreconditionFailed()
        ) as closed:
            return channel_closed(_text_of(closed))
        case aiormq_errors.ConnectionNotAllowed() as refused if is_lasting(_text_of(refused)):
            return refused_vhost(parameters, _text_of(refused))
        case Exception() as refused if alert := CERTIFICATE_ALERT.search(str(refused)):
            return certificate_refused(parameters, alert[0])
        case asyncio.CancelledError():  # how aiormq ends a connection that is silent for too long
            return ConnectionLostError(NO_SIGN_OF_LIFE)
        case other:
            return ConnectionLostError(_text_of(other))


def map_error_of_opening(
    error: BaseException, parameters: Any, answer: spec.Connection.Close | None = None
) -> BrokerError:
    """Return our error for what was raised when a connection was to be opened; `answer` is what the broker said."""
    match _root(error):
        case BrokerError() as own:
            return own
        case ssl.SSLCertVerificationError() as untrusted:
            return untrusted_certificate(parameters, untrusted)
        case Exception() as refused if alert := CERTIFICATE_ALERT.search(str(refused)):
            return certificate_refused(parameters, alert[0])
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return unreachable(parameters, SPEAKS_NO_TLS)
        case aiormq_errors.AuthenticationError() | aiormq_errors.ProbableAuthenticationError():
            return refused_user(parameters)
        case _ if answer is not None:
            tell = refused_vhost if is_lasting(answer.reply_text) else not_let_in
            return tell(parameters, answer.reply_text)
        case aio_pika_errors.AMQPConnectionError() as failed if "unexpectedly closed" in str(failed):
            return hung_up(parameters)
        case TimeoutError():
            return unreachable(parameters, HANDSHAKE_TOO_SLOW)
        case OSError() as failed:
            return unreachable(parameters, _text_of(failed))
        case other:
            return hung_up(parameters) if isinstance(other, aiormq_errors.ProtocolSyntaxError) else _lost(other)


def _lost(error: BaseException) -> ConnectionLostError:
    return ConnectionLostError(_text_of(error))


def _root(error: BaseException) -> BaseException:
    """Return why a connection could not be made: aiormq wraps what the system and TLS say of it."""
    cause = error.__cause__
    return cause if isinstance(error, OSError) and isinstance(cause, OSError) else error


def _text_of(error: BaseException) -> str:
    return str(error) or type(error).__name__
