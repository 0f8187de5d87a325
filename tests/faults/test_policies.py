"""A policy over all queues that takes messages away: the doctor notices."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from limetask import Settings
from tests.faults.nodes import Node
from tests.worker import environment_of


def examine(settings: Settings) -> subprocess.CompletedProcess[str]:
    command = Path(sys.executable).with_name("limetask")
    environment = environment_of(settings)
    return subprocess.run([command, "doctor"], env=environment, capture_output=True, text=True, timeout=60, check=False)


@pytest.fixture
def _short_lives(own_broker: Node, own_broker_settings: Settings) -> Iterator[None]:
    """A policy that gives every message of every queue one second: of ours, since the broker has other tests' too."""
    ours = f"^{own_broker_settings.namespace}[.]"
    try:
        own_broker.ctl("set_policy", "short", ours, '{"message-ttl": 1000}', "--apply-to", "queues")
        yield
    finally:
        own_broker.ctl("clear_policy", "short")


@pytest.mark.usefixtures("_short_lives")
def test_a_policy_with_a_short_life_for_messages_is_noticed(own_broker_settings: Settings) -> None:
    """At the first look, since it takes longer than that; with what to do."""
    told = examine(own_broker_settings).stdout
    assert "amiss policies: a message that was left in" in told
    assert "message-ttl" in told
    assert "rabbitmqctl list_policies" in told


def test_without_such_a_policy_nothing_is_amiss(own_broker_settings: Settings) -> None:
    """It is a note then: there may be others."""
    assert "\nnote  policies: a message left" in examine(own_broker_settings).stdout
