"""Virtual hosts with odd names, in the asyncio client."""

from __future__ import annotations

import pytest

from limetask import BrokerUrlError, Settings
from limetask.aio.connection import Connection


def test_a_name_that_the_library_would_decode_twice_is_refused() -> None:
    """Else it would send into the virtual host a/b what is meant for one that is called a%2Fb."""
    with pytest.raises(BrokerUrlError, match=r"the virtual host 'a%2Fb', which limetask\.aio cannot open.*not %252F"):
        Connection(Settings(broker_url="amqp://guest:guest@localhost/a%252Fb"), "test")


@pytest.mark.parametrize("encoded", ["a%2Fb", "a%25b", "%2F", "", "caf%C3%A9"])
def test_other_names_are_not(encoded: str) -> None:
    """A slash, a per cent sign or letters of any language are what they are."""
    Connection(Settings(broker_url=f"amqp://guest:guest@localhost/{encoded}"), "test")
