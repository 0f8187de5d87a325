"""An outage of the broker that lasts longer than the time limits of the tasks whose bodies end in it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from limetask import Settings
from tests.faults.conftest import OpenLedger, StartWorker
from tests.faults.form import in_form
from tests.faults.ledger import Ledger, now
from tests.faults.load import Sent
from tests.faults.nodes import Node
from tests.waiting import eventually

_LEAST_LIMIT_SECONDS = 10.0
# A supervisor kills what holds up its process three seconds after the limit, and looks once a second.
_LONGER_SECONDS = 6.0
# An outage of several times as much, so that all signs of life and all echoes of a whole timeout wait in it.
_SHORT_WORKER_TIMEOUT = 3.0
_SILENT_SECONDS = 10.0
_OF_EACH = 3
_WITH_LIMIT = [f"faulty.mixed.{name}" for name in ("early_limited", "late_limited", "early_limited_async")]
_NEIGHBOURS = [f"faulty.tasks.{name}" for name in ("held", "held_late")]


@contextmanager
def killed(broker: Node) -> Iterator[None]:
    """SIGKILL, and a start on the same data."""
    broker.kill()
    yield
    broker.up()


@contextmanager
def frozen(broker: Node) -> Iterator[None]:
    """SIGSTOP and SIGCONT: connections stay open, and nothing comes."""
    with broker.frozen():
        yield


@contextmanager
def short_of_memory(broker: Node) -> Iterator[None]:
    """A memory alarm: nothing is read from connections that publish."""
    broker.ctl("set_vm_memory_high_watermark", "absolute", "1MB")
    try:
        yield
    finally:
        broker.ctl("set_vm_memory_high_watermark", "0.4")


_OUTAGES = {"SIGKILL of the broker": killed, "SIGSTOP of the broker": frozen, "memory alarm": short_of_memory}
_SILENT_OUTAGES = ["memory alarm", "SIGSTOP of the broker"]
_FAULTS = in_form(["SIGKILL of the broker", "memory alarm"], [*_OUTAGES])


def send_held(ledger: Ledger, names: list[str], release: Path) -> list[Sent]:
    """Send tasks that run until the file `release` exists, and return them when all have begun."""
    sent = [one for name in names * _OF_EACH if (one := ledger.book.send(name, str(release))) is not None]
    assert len(sent) == len(names) * _OF_EACH
    eventually(lambda: all(ledger.starts()[one.number] for one in sent), 30, "bodies that run")
    return sent


def wait_until_recorded(ledger: Ledger) -> None:
    """Return when a new task has ended: the recorder has read what came before, and told what it takes for lost."""
    sent = eventually(lambda: ledger.book.send("faulty.tasks.early", 0.0), 60, "a send that is confirmed")
    eventually(lambda: (status := ledger.status_of(sent)) and status.status == "SUCCESS", 60, "its end")


def limit_for(broker: Node) -> float:
    """Return a time limit, in seconds, in which an outage can be brought about however busy this machine is."""
    begun = time.monotonic()
    broker.ctl("list_users")
    return max(_LEAST_LIMIT_SECONDS, 4.0 * (time.monotonic() - begun))


def end_in_an_outage(limit: float, release: Path, outage: AbstractContextManager[None]) -> float:
    """Let bodies end in an outage that goes on until their limits are long over; return when it was over."""
    begun = time.monotonic()
    with outage:
        assert time.monotonic() - begun < limit - 1, "the machine is too busy: the limits are over already"
        release.touch()
        time.sleep(max(0.0, begun + limit + _LONGER_SECONDS - time.monotonic()))
    return now()


@pytest.mark.parametrize("fault", _FAULTS)
def test_what_ends_within_its_limit_in_an_outage_has_succeeded(
    fault: str,
    own_broker: Node,
    own_broker_settings: Settings,
    open_ledger: OpenLedger,
    employ: StartWorker,
    tmp_path: Path,
) -> None:
    """Their ends cannot be told before their limits are over: nobody is killed for that, and all succeed."""
    ledger = open_ledger(own_broker_settings)
    limit = limit_for(own_broker)
    worker = employ(ledger, "--processes", "1", "--slots", "16", FAULTY_LIMIT_SECONDS=str(limit))
    send_held(ledger, _WITH_LIMIT + _NEIGHBOURS, tmp_path / "release")
    fault_ended = end_in_an_outage(limit, tmp_path / "release", _OUTAGES[fault](own_broker))
    verdict = ledger.check(f"{fault} for longer than a time limit", fault_ended)
    assert not verdict.failures
    assert not [event.fields for event in ledger.events.all() if event.status == "FAILURE"]
    assert not verdict.duplicated_late
    assert "died" not in worker.log
    assert "exceeded" not in worker.log


@pytest.mark.parametrize("fault", _SILENT_OUTAGES[: in_form(1, len(_SILENT_OUTAGES))])
def test_an_outage_in_which_nobody_gives_a_sign_of_life_fails_nothing(
    fault: str,
    own_broker: Node,
    own_broker_settings: Settings,
    open_ledger: OpenLedger,
    employ: StartWorker,
    tmp_path: Path,
) -> None:
    """Afterwards the recorder may hear all that it has sent to itself meanwhile before the workers' signs."""
    ledger = open_ledger(replace(own_broker_settings, worker_timeout=_SHORT_WORKER_TIMEOUT))
    worker = employ(ledger, "--processes", "1", "--slots", "16")
    for _ in range(in_form(1, 5)):
        release = tmp_path / uuid.uuid4().hex
        send_held(ledger, ["faulty.tasks.held", "faulty.tasks.held_late"], release)
        with _OUTAGES[fault](own_broker):
            time.sleep(_SILENT_SECONDS)
        wait_until_recorded(ledger)
        release.touch()
    verdict = ledger.check(f"{fault} for longer than a worker may be silent", now())
    assert not verdict.failures
    assert not [event.fields for event in ledger.events.all() if event.status == "FAILURE"]
    assert "is lost" not in worker.log


@pytest.mark.parametrize("fault", _FAULTS[: in_form(1, len(_OUTAGES))])
def test_what_exceeds_its_limit_in_an_outage_fails_alone(
    fault: str,
    own_broker: Node,
    own_broker_settings: Settings,
    open_ledger: OpenLedger,
    employ: StartWorker,
    tmp_path: Path,
) -> None:
    """It is TimeLimitExceeded, and its process ends: the ends of those beside it, not told before, are told yet."""
    ledger = open_ledger(own_broker_settings)
    limit = limit_for(own_broker)
    employ(ledger, "--processes", "1", "--slots", "16", FAULTY_LIMIT_SECONDS=str(limit))
    send_held(ledger, ["faulty.mixed.early_limited"], tmp_path / "never")
    send_held(ledger, _NEIGHBOURS, tmp_path / "release")
    fault_ended = end_in_an_outage(limit, tmp_path / "release", _OUTAGES[fault](own_broker))
    verdict = ledger.check(f"{fault} while tasks exceed their time limit", fault_ended)
    assert verdict.failures == {"TimeLimitExceeded": _OF_EACH}


pytestmark = pytest.mark.timeout(400)
