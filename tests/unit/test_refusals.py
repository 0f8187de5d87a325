"""The broker's refusals, as RabbitMQ words them: what each means, and what to do."""

from __future__ import annotations

import pytest

from limetask.amqp.refusals import explain_refusal

# As brokers have sent them.
DIFFERS = "PRECONDITION_FAILED - inequivalent arg 'x-delivery-limit' for queue 'limetask.tasks.default' in vhost '/': "
TEXTS = [
    (
        DIFFERS + "received '100' but current is '5'",
        "queue 'limetask.tasks.default' is there already, and its x-delivery-limit is not limetask's: there it is 5, "
        "limetask has 100.",
    ),
    (
        DIFFERS + "received the value '100' of type 'signedint' but current is none",
        "there it is not set, limetask has 100.",
    ),
    (
        DIFFERS + "received none but current is the value '5' of type 'signedint'",
        "there it is 5, limetask has not set.",
    ),
    (DIFFERS + "received '1' but current is '2'", "`rabbitmqctl delete_queue -p / limetask.tasks.default`"),
    (DIFFERS + "received '1' but current is '2'", "set LIMETASK_NAMESPACE to another name"),
    (
        "PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'it's.events' in vhost 'a b': received 'topic' but "
        "current is 'direct'",
        "its type is not limetask's: there it is direct, limetask has topic.",
    ),
    (
        "NOT_FOUND - no exchange 'limetask.events' in vhost '/'",
        "exchange 'limetask.events' is missing in virtual host '/': `limetask setup` makes what is missing",
    ),
    (
        "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'limetask.results' in vhost '/'. It could be "
        "originally declared on another connection or the exclusive property value does not match that of the original "
        "declaration.",
        "queue 'limetask.results' in virtual host '/' belongs to another connection alone",
    ),
    (
        "PRECONDITION_FAILED - delivery acknowledgement on channel 1 timed out. Timeout value used: 1800000 ms. This "
        "timeout value can be configured, see consumers doc guide to learn more",
        "a message was not acked for longer than the broker allows, which is 1800 s: raise consumer_timeout",
    ),
    (
        "PRECONDITION_FAILED - invalid arg 'x-queue-type' for queue 'q' in vhost '/': "
        "\"unsupported queue type 'quorum'\"",
        "the broker does not support what queue 'q' needs: limetask runs on RabbitMQ 3.10 to 4.3",
    ),
    ("PRECONDITION_FAILED - something new", "the broker refused: PRECONDITION_FAILED - something new"),
]


@pytest.mark.parametrize(("reply_text", "told"), TEXTS)
def test_a_refusal_says_what_to_do(reply_text: str, told: str) -> None:
    """What differs or is missing is named, with a remedy, and the broker's own words stay in the message."""
    assert told in explain_refusal(reply_text)
    assert f"the broker refused: {reply_text}" in explain_refusal(reply_text)
