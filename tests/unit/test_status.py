"""TaskStatus: an unchanging picture of a task, and what it offers."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from limetask import ErrorInfo, LimetaskError, Status, TaskStatus, UsageError
from limetask.status import Rank

NOW = datetime(2026, 11, 20, 10, 5, tzinfo=UTC)
SUCCESS = TaskStatus("id-1", Status.SUCCESS, {"sum": 3}, None, "pkg.add", "shop", 2, "host.1", NOW, NOW, NOW)
FAILURE = TaskStatus("id-2", Status.FAILURE, None, ErrorInfo("ValueError", "no", "Traceback"), app="shop")
PENDING = TaskStatus("id-3", Status.PENDING, app="shop")


class Reader:
    """Answers with a fixed status, and notes what it was asked."""

    def __init__(self, answer: TaskStatus) -> None:
        self.answer = answer
        self.asked: list[tuple[Any, ...]] = []

    def read(self, task_id: str, app: str) -> TaskStatus:
        self.asked.append(("read", task_id, app))
        return self.answer

    def wait(self, status: TaskStatus, timeout: float) -> TaskStatus:
        self.asked.append(("wait", status, timeout))
        return self.answer


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (SUCCESS, {"id": "id-1", "status": "SUCCESS", "result": {"sum": 3}}),
        (FAILURE, {"id": "id-2", "status": "FAILURE", "result": None}),
        (PENDING, {"id": "id-3", "status": "PENDING", "result": None}),
    ],
)
def test_to_dict_shows_id_status_and_result_only(status: TaskStatus, shown: dict[str, Any]) -> None:
    """`to_dict` gives exactly three keys in a fixed order, ready for JSON, with the status as a plain string."""
    assert status.to_dict() == shown
    assert list(status.to_dict()) == ["id", "status", "result"]
    assert type(status.to_dict()["status"]) is str
    assert json.loads(json.dumps(status.to_dict())) == shown


@pytest.mark.parametrize(
    ("status", "completed"),
    [(Status.PENDING, False), (Status.STARTED, False), (Status.SUCCESS, True), (Status.FAILURE, True)],
)
def test_success_and_failure_are_the_ends(status: Status, completed: bool) -> None:
    """A task has ended when it has succeeded or failed, and not before."""
    assert replace(PENDING, status=status).is_completed() is completed


def test_a_task_begins_with_its_first_attempt() -> None:
    """A status that tells nothing else is of a first attempt without result, error, worker or times."""
    status = TaskStatus("id-1", Status.PENDING)
    told = [getattr(status, field.name) for field in dataclasses.fields(status)]
    assert told == ["id-1", "PENDING", None, None, None, "", 1, None, None, None, None, None]


def test_there_are_four_statuses() -> None:
    """The statuses are the four documented ones, spelt as their values."""
    assert [status.value for status in Status] == ["PENDING", "STARTED", "SUCCESS", "FAILURE"]


@pytest.mark.parametrize("status", list(Status))
def test_a_status_is_its_name(status: Status) -> None:
    """A status compares, hashes and prints like the string of its name."""
    assert status == status.name
    assert {status.name: 1}[status] == 1
    assert f"{status}" == str(status) == status.name
    assert Status(status.name) is status


def test_a_reported_end_outranks_a_presumed_loss() -> None:
    """Within an attempt, a start gives way to a presumed loss, and both to a reported end."""
    assert Rank.STARTED < Rank.PRESUMED_LOST < Rank.ENDED


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(TaskStatus)])
def test_a_status_cannot_be_changed(field: str) -> None:
    """No field of a TaskStatus can be set."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(SUCCESS, field, "other")


def test_an_error_cannot_be_changed() -> None:
    """What a status tells of an error is frozen as well, and has no traceback unless one is given."""
    error = ErrorInfo("ValueError", "no")
    assert error == ErrorInfo("ValueError", "no", "")
    with pytest.raises(dataclasses.FrozenInstanceError):
        error.message = "yes"  # type: ignore[misc]


def test_a_status_takes_no_new_attributes() -> None:
    """A misspelt attribute is an error, not a new attribute."""
    with pytest.raises((AttributeError, TypeError)):
        SUCCESS.stauts = Status.FAILURE  # type: ignore[attr-defined]


def test_equality_ignores_the_reader() -> None:
    """Two statuses that tell the same are equal, wherever they come from."""
    assert replace(SUCCESS, _reader=Reader(SUCCESS)) == SUCCESS
    assert replace(SUCCESS, attempt=3) != SUCCESS


def test_the_reader_is_not_shown() -> None:
    """The representation of a status holds its fields and not what it reads from."""
    shown = repr(replace(SUCCESS, _reader=Reader(SUCCESS)))
    assert "id-1" in shown
    assert "reader" not in shown.lower()


@pytest.mark.parametrize("status", [SUCCESS, FAILURE])
def test_waiting_for_an_ended_task_returns_it_at_once(status: TaskStatus) -> None:
    """`wait` on a status that is an end returns that very status and needs nothing to read from."""
    assert status.wait(timeout=0) is status


@pytest.mark.parametrize("timeout", [10**400, -(10**400), Decimal("sNaN"), Decimal("NaN"), None, "5", True])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(timeout: Any) -> None:
    """A timeout that no clock can count is an error of ours, whatever its type."""
    with pytest.raises(UsageError, match="number of seconds"):
        PENDING.wait(timeout)


def test_waiting_asks_the_reader() -> None:
    """`wait` on a task that goes on gives what the reader answers."""
    reader = Reader(SUCCESS)
    pending = replace(PENDING, _reader=reader)
    assert pending.wait(timeout=1.5) is SUCCESS
    assert reader.asked == [("wait", pending, 1.5)]


@pytest.mark.parametrize("status", [PENDING, SUCCESS])
def test_refreshing_asks_the_reader(status: TaskStatus) -> None:
    """`refresh` reads anew by id and application, even for a task that has ended."""
    reader = Reader(FAILURE)
    assert replace(status, _reader=reader).refresh() is FAILURE
    assert reader.asked == [("read", status.id, "shop")]


@pytest.mark.parametrize("ask", [lambda status: status.refresh(), lambda status: status.wait(1.0)])
def test_a_status_made_by_hand_cannot_be_asked(ask: Callable[[TaskStatus], TaskStatus]) -> None:
    """A TaskStatus that nobody read says so, and how to get one that can be refreshed."""
    with pytest.raises(LimetaskError, match=r"made by hand.*get_status"):
        ask(PENDING)


@pytest.mark.parametrize("status", [SUCCESS, FAILURE, PENDING])
@pytest.mark.parametrize("duplicate", [copy.copy, copy.deepcopy, lambda status: pickle.loads(pickle.dumps(status))])
def test_a_status_can_be_copied_and_pickled(status: TaskStatus, duplicate: Callable[[TaskStatus], TaskStatus]) -> None:
    """A copy, a deep copy and a pickled status are equal to the original."""
    assert duplicate(status) == status
