"""The AMQP core: one connection that heals itself, on pika's asyncio adapter.

This package alone imports pika, and maps its errors. A `Connection` owns everything that must be rebuilt together
after a fault: connection, channel, topology, prefetch and consumers. Each rebuild is a new *epoch*; a delivery
carries the epoch it came in, and an ack for an older one is dropped, since the broker has taken it back already.

A Connection belongs to one asyncio loop and is not thread-safe.
"""

import logging

from limetask.amqp.connection import Connection
from limetask.amqp.delivery import Delivery, ReplyQueue, Subscription
from limetask.amqp.headers import tolerate_strange_headers
from limetask.amqp.size_limit import SizeRefusedError
from limetask.settings import hidden_password

tolerate_strange_headers()
# pika reports each fault several times, with addresses and without advice; `faults` says it once.
logging.getLogger("pika").setLevel(logging.CRITICAL)

__all__ = ["Connection", "Delivery", "ReplyQueue", "SizeRefusedError", "Subscription", "hidden_password"]
