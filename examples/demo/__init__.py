"""Shows what limetask does, with the CRM beside it as its user: in some seconds, and nothing is left behind.

Everything that it says is checked while it runs: where something is not as it says, it stops and its exit code is 1.
The code that it shows is the code that it runs. It needs a RabbitMQ: that of LIMETASK_BROKER_URL or, without it, the
one that `scripts/rabbitmq up` has running or starts. There it works in a namespace of its own.
"""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WAIT_SECONDS = 30


class DemoError(Exception):
    """Something is not as the demo says."""
