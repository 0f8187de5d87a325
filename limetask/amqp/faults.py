"""pika's errors, told as ours: what is wrong, and what to do."""

from __future__ import annotations

import re
import ssl
from typing import Any

from pika import exceptions as pika_errors
from pika.adapters.utils import connection_workflow

from limetask.amqp.refusals import explain_refusal
from limetask.amqp.size_limit import SizeRefusedError, fate_of, size_refusal
from limetask.amqp.url import address_of
from limetask.errors import BrokerError, BrokerRefusedError, BrokerUnreachableError, ConnectionLostError
from limetask.logs import careful_logger
from limetask.message import Envelope

logger = careful_logger(__name__)

# OpenSSL's codes for a certificate of another host name or address.
_OTHER_NAME_CODES = (62, 64)
# What a server says of a client's certificate, or of a missing one. It may come long after the handshake, when only
# the text of OpenSSL's error is left in pika's.
CERTIFICATE_ALERT = re.compile(r"\w+_ALERT_(\w*CERTIFICATE\w*|UNKNOWN_CA|HANDSHAKE_FAILURE|ACCESS_DENIED)")

# What a broker says when a virtual host is missing, or the user has no permission in it. Limits stand after a colon.
_LASTING_REFUSAL = re.compile(r"vhost .* not found|access to vhost .* refused for user '[^']*'(?!:)")

# What the broker calls the exchange without a name when it refuses it.
_DEFAULT_EXCHANGE = "amq.default"

SPEAKS_NO_TLS = "what answers there speaks no TLS: amqps:// usually has port 5671"
HANDSHAKE_TOO_SLOW = "it did not complete the AMQP handshake in time"
NO_SIGN_OF_LIFE = "the broker gave no sign of life"


def map_error(error: BaseException, parameters: Any) -> BrokerError:
    """Return our error for one of pika's: the only place that knows both."""
    match _root(error):
        case BrokerError() as own:
            return own
        case ssl.SSLCertVerificationError() as untrusted:
            return untrusted_certificate(parameters, untrusted)
        case Exception() as refused if alert := CERTIFICATE_ALERT.search(str(refused)):
            return certificate_refused(parameters, alert[0])
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return unreachable(parameters, SPEAKS_NO_TLS)
        case pika_errors.ProbableAuthenticationError() | pika_errors.AuthenticationError():
            return refused_user(parameters)
        case pika_errors.ProbableAccessDeniedError() as refused if is_lasting(_text_of(refused)):
            return refused_vhost(parameters, _text_of(refused))
        case pika_errors.ConnectionClosedByBroker(reply_code=403 | 530) as closed if is_lasting(_text_of(closed)):
            return refused_vhost(parameters, _text_of(closed))
        case pika_errors.ChannelClosedByBroker(reply_code=403) as refused:
            return refused_permission(refused.reply_text)
        case pika_errors.ChannelClosedByBroker(reply_code=code) as closed if code in (404, 405, 406):
            return channel_closed(closed.reply_text)
        case pika_errors.ConnectionClosed() | pika_errors.ChannelClosed() as closed:
            return ConnectionLostError(f"closed with {closed.reply_code}: {closed.reply_text}")
        case pika_errors.IncompatibleProtocolError() | pika_errors.ProtocolSyntaxError():
            return hung_up(parameters)
        case connection_workflow.AMQPConnectorSocketConnectError() | OSError() as failed:
            return unreachable(parameters, str(failed) or type(failed).__name__)
        case connection_workflow.AMQPConnectorStackTimeout() | connection_workflow.AMQPConnectorException():
            return unreachable(parameters, HANDSHAKE_TOO_SLOW)
        case pika_errors.AMQPHeartbeatTimeout():
            return ConnectionLostError(NO_SIGN_OF_LIFE)
        case other:
            return ConnectionLostError(str(other) or type(other).__name__)


def map_error_of_opening(error: BaseException, parameters: Any) -> BrokerError:
    """Return our error for one of pika's that says why a connection could not be opened."""
    mapped = map_error(error, parameters)
    if not isinstance(mapped, ConnectionLostError):
        return mapped
    match _root(error):
        case (pika_errors.ProbableAccessDeniedError() | pika_errors.ConnectionClosedByBroker()) as closed:
            return not_let_in(parameters, _text_of(closed))
    return unreachable(parameters, str(mapped))


def foreseen(error: Exception) -> BrokerError:
    """Return an error of ours as it is, and any other as one of ours, for those who try again whatever it was.

    Another one is a bug, here or in a library: it is logged with its traceback.
    """
    if isinstance(error, BrokerError):
        return error
    logger.error(
        "connecting to the broker failed as it should not, and is tried again; please report this", exc_info=error
    )
    return ConnectionLostError(f"connecting to the broker failed as it should not: {error!r}")


def _root(error: BaseException) -> BaseException:
    """Unwrap the layers in which pika reports why a connection could not be opened."""
    match error:
        case connection_workflow.AMQPConnectionWorkflowFailed(exceptions=[*_, last]):
            return _root(last)
        case connection_workflow.AMQPConnectorPhaseErrorBase(exception=BaseException() as inner):
            return _root(inner)
        case pika_errors.AMQPConnectionError(args=[BaseException() as inner]):
            return _root(inner)
    return error


def _text_of(error: BaseException) -> str:
    return str(getattr(error, "reply_text", None) or error)


def is_lasting(reply_text: str) -> bool:
    """Return True for the refusal of a virtual host that lasts, as far as it can be known.

    With any other reason it may pass: a limit of connections, a virtual host that is starting, and what later brokers
    will say.
    """
    return " - " not in reply_text or _LASTING_REFUSAL.search(reply_text) is not None


# What follows tells each fault in our words, for both client libraries: pika, and aio-pika in `limetask.aio`.
# `parameters` are pika's in both.


def untrusted_certificate(parameters: Any, error: ssl.SSLCertVerificationError) -> BrokerRefusedError:
    reason = getattr(error, "verify_message", None) or str(error)
    if getattr(error, "verify_code", None) in _OTHER_NAME_CODES:
        return BrokerRefusedError(
            f"the certificate of the broker at {address_of(parameters)} is not for that name ({reason}): "
            "LIMETASK_BROKER_URL must have the host as the certificate has it"
        )
    return BrokerRefusedError(
        f"the certificate of the broker at {address_of(parameters)} cannot be trusted ({reason}): LIMETASK_BROKER_CA "
        "must name the file of the authority that made it"
    )


def certificate_refused(parameters: Any, alert: str) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"the broker at {address_of(parameters)} wants a client's certificate that it trusts ({alert}): set "
        "LIMETASK_BROKER_CERTIFICATE and LIMETASK_BROKER_KEY to one, or mend what they name"
    )


def refused_user(parameters: Any) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"the broker at {address_of(parameters)} refused user {parameters.credentials.username!r}: "
        "check user and password in LIMETASK_BROKER_URL"
    )


def refused_permission(reply_text: str) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"the broker refused: {reply_text}: `rabbitmqctl set_permissions` gives what is missing, and "
        "limetask's docs/security.md says what each process needs"
    )


def channel_closed(reply_text: str) -> BrokerError:
    """Return the error for a channel that the broker has closed since it refuses something."""
    return size_refusal(reply_text) or BrokerRefusedError(explain_refusal(reply_text))


def fate_of_publish(exchange: str, envelope: Envelope, closed: BrokerError) -> BrokerError:
    """Return what became of a publish when its channel closed: unknown, unless itself or its exchange was refused."""
    if isinstance(closed, SizeRefusedError):
        return fate_of(envelope, closed)
    if isinstance(closed, BrokerRefusedError) and f"exchange '{exchange or _DEFAULT_EXCHANGE}'" in str(closed):
        return BrokerRefusedError(str(closed))
    return ConnectionLostError(f"closed before the broker confirmed: {closed}")


def refused_vhost(parameters: Any, reply_text: str) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"the broker at {address_of(parameters)} refused virtual host {parameters.virtual_host!r} for user "
        f"{parameters.credentials.username!r}: check the path of LIMETASK_BROKER_URL and the user's permissions "
        f"({reply_text})"
    )


def not_let_in(parameters: Any, reply_text: str) -> BrokerError:
    cure = (
        "`rabbitmqctl list_vhost_limits` and `list_user_limits` show the limits"
        if "limit" in reply_text
        else ("the broker's log may say more")
    )
    return BrokerError(
        f"the broker at {address_of(parameters)} answers and does not accept this connection now ({reply_text}): {cure}"
    )


def unreachable(parameters: Any, reason: str) -> BrokerUnreachableError:
    return BrokerUnreachableError(
        f"no RabbitMQ at {address_of(parameters)} ({reason}): start it, or set LIMETASK_BROKER_URL to where it is"
    )


def hung_up(parameters: Any) -> BrokerUnreachableError:
    hint = "it may want a client's certificate" if parameters.ssl_options else "it may want TLS, amqps://"
    return unreachable(parameters, f"what answers there hangs up, or speaks no AMQP 0-9-1; {hint}")
