"""Bodies of AMQP 1.0 as RabbitMQ hands them to us, who speak AMQP 0-9-1.

An AMQP 1.0 client sends a body as data, which are bytes and arrive as they are, or as a value of AMQP 1.0's own types.
RabbitMQ passes such a value on in its encoding of AMQP 1.0, in a message of the type `amqp-1.0`.
"""

from __future__ import annotations

import struct

from limetask.errors import MessageRefusedError

AMQP_1_0 = "amqp-1.0"
"""The type of a message whose body is encoded as AMQP 1.0 encodes values."""

# A described type, with a small number as its descriptor: the section `amqp-value`.
_VALUE_SECTION = b"\x00\x53\x77"
# The constructors of text and of bytes, with a size of one byte or of four.
_SHORT, _LONG = b"\xa1\xa0", b"\xb1\xb0"


def body_of_amqp_1_0(encoded: bytes) -> bytes:
    """Return the text or the bytes that are the value in a body; raises MessageRefusedError for any other value."""
    try:
        if encoded.startswith(_VALUE_SECTION):
            kind, at = encoded[len(_VALUE_SECTION)], len(_VALUE_SECTION) + 1
            if kind in _SHORT:
                return _all_of(encoded, at + 1, encoded[at])
            if kind in _LONG:
                return _all_of(encoded, at + 4, struct.unpack_from(">I", encoded, at)[0])
    except (IndexError, struct.error):
        pass  # it is cut off, or more follows: refused below, like every other value
    raise MessageRefusedError(
        "its body is a value of AMQP 1.0 and not bytes: send it as a data section, with what the message says in it"
    )


def _all_of(encoded: bytes, begin: int, size: int) -> bytes:
    if len(encoded) != begin + size:
        raise IndexError("another section follows")
    return encoded[begin:]
