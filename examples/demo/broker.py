"""The RabbitMQ: given, running, or started for the demo; and what is removed from it afterwards."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pika

from limetask.topology import Names, topology

from . import ROOT, DemoError


@contextmanager
def running_broker() -> Iterator[str]:
    """Give the URL of a broker, and stop it afterwards if it was not running before."""
    script = ROOT / "scripts" / "rabbitmq"
    services = Path(os.environ.get("LIMETASK_SERVICES_DIR", ROOT / ".services"))
    # A broker that was stopped with its data kept must still have its data afterwards.
    down = ["down", "--keep"] if (services / "rabbitmq").exists() else ["down"]
    # A broker that LIMETASK_BROKER_URL names is not ours to stop, reachable or not; and `down` would not stop that one,
    # but the checkout's own.
    is_given = bool(os.environ.get("LIMETASK_BROKER_URL"))
    is_ours = not is_given and subprocess.run([script, "url"], capture_output=True, check=False).returncode != 0
    try:
        started = subprocess.run([script, "up"], stdout=subprocess.PIPE, text=True, check=False)
        if started.returncode != 0:
            raise DemoError("`scripts/rabbitmq up` could not give a broker")
        yield started.stdout.strip()
    finally:
        if is_ours:
            subprocess.run([script, *down], check=False)


def delete_from_broker(broker_url: str, namespace: str) -> None:
    """Delete a namespace's exchanges and queues."""
    everything = topology(Names(namespace))
    with pika.BlockingConnection(pika.URLParameters(broker_url)) as connection:
        channel = connection.channel()
        for queue in everything.queues:
            channel.queue_delete(queue.name)
        for exchange in everything.exchanges:
            channel.exchange_delete(exchange.name)
