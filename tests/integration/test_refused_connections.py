"""Refusals that may pass, by a broker whose limits these tests may change."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from limetask import (
    BrokerError,
    BrokerRefusedError,
    BrokerUnreachableError,
    LimetaskError,
    Settings,
    aio,
    configure,
    send_task,
)
from tests.integration.test_permissions import OwnBroker, add_user, broker, broker_url, settings_as

__all__ = ["add_user", "broker", "broker_url", "settings_as"]  # fixtures

NO_CONNECTIONS = '{"max-connections": 0}'
NO_CHANNELS = '{"max-channels": 0}'


def send() -> None:
    send_task("a.task", "acme")


def send_by_aio() -> None:
    async def sending() -> None:
        try:
            await aio.send_task("a.task", "acme")
        finally:
            await aio.close()

    asyncio.run(sending())


clients = pytest.mark.parametrize("send", [send, send_by_aio])


@pytest.fixture
def limited(settings_as: Callable[..., Settings]) -> Settings:
    """Settings with a user who may do everything."""
    return settings_as("limited", ".*", ".*", ".*")


@contextmanager
def limit(broker: OwnBroker, limits: str) -> Iterator[None]:
    broker.ctl("set_user_limits", "limited", limits)
    try:
        yield
    finally:
        broker.ctl("clear_user_limits", "limited", "all")


@clients
@pytest.mark.parametrize(
    ("limits", "told"),
    [
        (
            NO_CONNECTIONS,
            r"does not accept this connection now .*user connection limit \(0\) is reached.*list_user_limits",
        ),
        (NO_CHANNELS, "number of channels opened for user 'limited' has reached the maximum allowed user limit"),
    ],
)
def test_a_limit_is_told_as_what_it_is(
    limited: Settings, broker: OwnBroker, send: Callable[[], None], limits: str, told: str
) -> None:
    """It is no refusal of the user or the virtual host, and RabbitMQ need not be started."""
    configure(replace(limited, send_timeout=5.0))
    with limit(broker, limits), pytest.raises(BrokerError, match=told) as caught:
        send()
    assert not isinstance(caught.value, BrokerRefusedError | BrokerUnreachableError)


@clients
def test_a_limit_of_a_virtual_host_is_told(settings: Settings, broker: OwnBroker, send: Callable[[], None]) -> None:
    """With the virtual host's name and its limit, as the broker tells them."""
    broker.ctl("add_vhost", "crowded")
    broker.ctl("set_permissions", "-p", "crowded", "guest", ".*", ".*", ".*")
    broker.ctl("set_vhost_limits", "-p", "crowded", NO_CONNECTIONS)
    configure(replace(settings, broker_url=f"{settings.broker_url.rstrip('/')}/crowded", send_timeout=5.0))
    with pytest.raises(BrokerError, match=r"access to vhost 'crowded' refused .*connection limit \(0\) is reached"):
        send()


@clients
def test_a_send_is_tried_again_until_the_limit_is_gone(
    limited: Settings, broker: OwnBroker, send: Callable[[], None]
) -> None:
    """A send that waits for its connection goes through as soon as the broker accepts it."""
    configure(replace(limited, send_timeout=60.0))
    failures: list[LimetaskError] = []

    def sending() -> None:
        try:
            send()
        except LimetaskError as exc:
            failures.append(exc)

    with limit(broker, NO_CONNECTIONS):
        thread = threading.Thread(target=sending)
        thread.start()
        thread.join(1.0)  # time to be refused; that it goes on waiting is asserted, not how long
        assert thread.is_alive()
    thread.join(60)
    assert not thread.is_alive()
    assert failures == []
