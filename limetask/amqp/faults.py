"""pika's errors, told as ours: what is wrong, and what to do."""

from __future__ import annotations

from typing import Any

from pika import exceptions as pika_errors
from pika.adapters.utils import connection_workflow

from limetask.amqp.url import address_of
from limetask.errors import BrokerError, BrokerRefusedError, BrokerUnreachableError, ConnectionLostError


def map_error(error: BaseException, parameters: Any) -> BrokerError:
    """Return our error for one of pika's: the only place that knows both."""
    match _root(error):
        case BrokerError() as own:
            return own
        case pika_errors.ProbableAuthenticationError() | pika_errors.AuthenticationError():
            return BrokerRefusedError(
                f"the broker at {address_of(parameters)} refused user {parameters.credentials.username!r}: "
                "check user and password in LIMETASK_BROKER_URL"
            )
        case pika_errors.ProbableAccessDeniedError() as refused:
            return _refused_vhost(parameters, refused)
        case pika_errors.ConnectionClosedByBroker(reply_code=code) as closed if code in (403, 530):
            return _refused_vhost(parameters, closed)
        case pika_errors.ChannelClosedByBroker(reply_code=403) as refused:
            return BrokerRefusedError(
                f"the broker refused: {refused.reply_text}: `rabbitmqctl set_permissions` gives what is missing, and "
                "limetask's docs/security.md says what each process needs"
            )
        case pika_errors.ChannelClosedByBroker(reply_code=code) as closed if code in (404, 405, 406):
            return BrokerRefusedError(f"the broker refused: {closed.reply_text}")
        case pika_errors.ConnectionClosed() | pika_errors.ChannelClosed() as closed:
            return ConnectionLostError(f"closed with {closed.reply_code}: {closed.reply_text}")
        case pika_errors.IncompatibleProtocolError() | pika_errors.ProtocolSyntaxError():
            return unreachable(parameters, "what answers there hangs up, or speaks no AMQP 0-9-1")
        case connection_workflow.AMQPConnectorSocketConnectError() | OSError() as failed:
            return unreachable(parameters, str(failed) or type(failed).__name__)
        case connection_workflow.AMQPConnectorStackTimeout() | connection_workflow.AMQPConnectorException():
            return unreachable(parameters, "it did not complete the AMQP handshake in time")
        case pika_errors.AMQPHeartbeatTimeout():
            return ConnectionLostError("the broker gave no sign of life")
        case other:
            return ConnectionLostError(str(other) or type(other).__name__)


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


def _refused_vhost(parameters: Any, error: Exception) -> BrokerRefusedError:
    return BrokerRefusedError(
        f"the broker at {address_of(parameters)} refused virtual host {parameters.virtual_host!r} for user "
        f"{parameters.credentials.username!r}: check the path of LIMETASK_BROKER_URL and the user's permissions "
        f"({getattr(error, 'reply_text', None) or error})"
    )


def unreachable(parameters: Any, reason: str) -> BrokerUnreachableError:
    return BrokerUnreachableError(
        f"no RabbitMQ at {address_of(parameters)} ({reason}): start it, or set LIMETASK_BROKER_URL to where it is"
    )
