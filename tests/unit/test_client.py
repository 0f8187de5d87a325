"""What the client does without a broker."""

from __future__ import annotations

from typing import Any

import pytest

from limetask.client import Client
from limetask.sending import TaskCall
from limetask.settings import Settings


class Broken:
    """A publisher that is connected, and cannot encode what it shall publish."""

    is_ready = True

    def publish(self, *_: Any, **__: Any) -> Any:
        raise ZeroDivisionError("an error of ours")

    async def close(self) -> None:
        pass


def test_an_error_in_encoding_is_raised_at_once() -> None:
    """It is told as it is, and not after the send's timeout, as an outcome that is unknown."""
    client = Client(Settings(send_timeout=3600.0))
    client._publisher = Broken()  # type: ignore[assignment]
    try:
        with pytest.raises(ZeroDivisionError):
            client.send(TaskCall("pkg.tasks.run", "shop"))
    finally:
        client.close()
