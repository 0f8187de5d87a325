"""Task ids: their layout, whom they belong to, and how old they are."""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from limetask import ids

APP = "shop"
MOMENT = datetime(2026, 11, 20, 10, 5, 24, 134000, tzinfo=UTC)
OWN = "01a1f86a-ff26-85e6-9272-bd3e1ea04304"
VERSION_BITS = 0xF << 76
VARIANT_BITS = 0b11 << 62


def made_at(moment: datetime, app: str = APP) -> str:
    return ids.new_task_id(app, now=moment.timestamp())


def test_ids_of_earlier_releases_stay_valid() -> None:
    """An id that was made once, and is kept in stores and in other programs, belongs to its application for good."""
    assert ids.belongs_to(OWN, APP)
    assert ids.sent_at(OWN) == MOMENT


def test_a_new_id_is_a_uuid_of_version_8() -> None:
    """An id is a canonical UUID with version 8 and the variant of RFC 9562."""
    task_id = ids.new_task_id(APP)
    parsed = uuid.UUID(task_id)
    assert str(parsed) == task_id
    assert parsed.version == 8
    assert parsed.variant == uuid.RFC_4122


def test_the_first_48_bits_are_the_time_in_milliseconds() -> None:
    """The time at which an id was made stands in its first 48 bits."""
    milliseconds = (MOMENT - datetime.fromtimestamp(0, UTC)) // timedelta(milliseconds=1)
    assert uuid.UUID(made_at(MOMENT)).int >> 80 == milliseconds


def test_an_id_keeps_its_time_to_the_millisecond() -> None:
    """`sent_at` gives the moment back in UTC, without the microseconds."""
    assert ids.sent_at(made_at(MOMENT + timedelta(microseconds=999))) == MOMENT
    assert ids.sent_at(made_at(MOMENT)).tzinfo is UTC


def test_the_clock_gives_the_time_by_default() -> None:
    """Without `now` an id is as old as the call that made it."""
    before = datetime.now(UTC).replace(microsecond=0)
    assert before <= ids.sent_at(ids.new_task_id(APP)) <= datetime.now(UTC)


def test_all_random_bits_vary() -> None:
    """Each bit that is neither time, version nor variant is 0 in some ids and 1 in others."""
    numbers = [uuid.UUID(made_at(MOMENT)).int for _ in range(200)]
    some_are_1, all_are_1 = 0, (1 << 128) - 1
    for number in numbers:
        some_are_1 |= number
        all_are_1 &= number
    assert some_are_1 & ~all_are_1 == (1 << 80) - 1 & ~VERSION_BITS & ~VARIANT_BITS


def test_100_000_ids_of_one_millisecond_are_unique() -> None:
    """Even in one and the same millisecond no id comes twice."""
    now = MOMENT.timestamp()
    assert len({ids.new_task_id(APP, now) for _ in range(100_000)}) == 100_000


def test_ids_sort_by_age() -> None:
    """The texts of ids sort as the ids were made."""
    made = [made_at(MOMENT + timedelta(milliseconds=number)) for number in range(1000)]
    assert sorted(made) == made


@pytest.mark.parametrize("app", ["shop", "a", "Müller & Söhne", "x" * 255, "\ud800"])
def test_an_id_belongs_to_its_application(app: str) -> None:
    """Whatever the application is called, it recognises its own id."""
    assert ids.belongs_to(ids.new_task_id(app), app)


@pytest.mark.parametrize("other", ["Shop", "shop ", "shop2", "", "SHOP"])
def test_an_id_belongs_to_no_other_application(other: str) -> None:
    """An application that is called otherwise, if ever so slightly, does not own the id."""
    assert not ids.belongs_to(OWN, other)


def test_an_id_with_another_tag_belongs_to_nobody() -> None:
    """The tag covers every other bit: changing any one of the 128 makes the id foreign."""
    number = uuid.UUID(OWN).int
    changed = [str(uuid.UUID(int=number ^ (1 << bit))) for bit in range(128)]
    assert not any(ids.belongs_to(task_id, APP) for task_id in changed)


MALFORMED: dict[str, Any] = {
    "none": None,
    "int": uuid.UUID(OWN).int,
    "bytes": OWN.encode(),
    "uuid": uuid.UUID(OWN),
    "list": [OWN],
    "empty": "",
    "no uuid": "not an id",
    "upper case": OWN.upper(),
    "braces": f"{{{OWN}}}",
    "urn": f"urn:uuid:{OWN}",
    "no hyphens": OWN.replace("-", ""),
    "hyphens elsewhere": f"{OWN[:4]}-{OWN[4:8]}{OWN[8:]}",
    "leading space": f" {OWN}",
    "trailing newline": f"{OWN}\n",
    "too short": OWN[:-1],
    "too long": f"{OWN}0",
    "other digits": OWN.replace(OWN[0], "\N{ARABIC-INDIC DIGIT ZERO}", 1),
    "version 4": str(uuid.uuid4()),
    "version 1": str(uuid.uuid1()),
    "nil": str(uuid.UUID(int=0)),
    "max": str(uuid.UUID(int=(1 << 128) - 1)),
}


@pytest.mark.parametrize("kind", MALFORMED)
def test_what_is_malformed_is_no_id(kind: str) -> None:
    """Whatever is no id in its canonical form belongs to nobody and has no age; nothing but ValueError is raised."""
    task_id = MALFORMED[kind]
    assert not ids.belongs_to(task_id, APP)
    with pytest.raises(ValueError, match="is not a task id"):
        ids.sent_at(task_id)


def test_a_time_that_no_calendar_has_makes_no_id() -> None:
    """An id whose 48 bits of time are beyond the year 9999 is malformed, even if its tag fits."""
    last_year = datetime(9999, 12, 31, tzinfo=UTC).timestamp()
    task_id = ids.new_task_id(APP, now=last_year + 10 * 24 * 3600)
    assert not ids.belongs_to(task_id, APP)
    with pytest.raises(ValueError, match="is not a task id"):
        ids.sent_at(task_id)


def test_the_oldest_id_bounds_the_ids_of_a_moment() -> None:
    """Every id made at a moment or later is above `oldest_id`, and every one made before is below."""
    bound = ids.oldest_id(MOMENT)
    assert all(made_at(MOMENT) >= bound for _ in range(100))
    assert all(made_at(MOMENT - timedelta(milliseconds=1)) < bound for _ in range(100))


def test_the_oldest_id_is_the_smallest_uuid_of_its_millisecond() -> None:
    """Below the time, all bits of `oldest_id` are 0."""
    number = uuid.UUID(ids.oldest_id(MOMENT)).int
    assert number % (1 << 80) == 0
    assert ids.oldest_id(MOMENT) == str(uuid.UUID(int=number))


@pytest.mark.parametrize("moment", [datetime(1969, 12, 31, tzinfo=UTC), datetime(1926, 11, 20, tzinfo=UTC)])
def test_before_1970_the_oldest_id_is_the_smallest_of_all(moment: datetime) -> None:
    """A moment before all ids, as a retention of a hundred years gives it, has the nil UUID for its bound."""
    assert ids.oldest_id(moment) == str(uuid.UUID(int=0))


@pytest.mark.parametrize("new_id", [ids.new_message_id, ids.new_event_id])
class TestUnique:
    def test_threads_make_different_ones(self, new_id: Callable[[], str]) -> None:
        """No id comes twice, whichever thread makes it."""
        made: list[list[str]] = []
        threads = [threading.Thread(target=lambda: made.append([new_id() for _ in range(5000)])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len({one for some in made for one in some}) == 20_000

    def test_a_forked_process_makes_others(self, new_id: Callable[[], str]) -> None:
        """Parent and child do not go on with the same ids."""
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(writing, "\n".join(new_id() for _ in range(100)).encode())
            os._exit(0)
        os.close(writing)
        with os.fdopen(reading) as answer:
            made_by_child = answer.read().split("\n")
        os.waitpid(child, 0)
        assert len({*made_by_child, *(new_id() for _ in range(100))}) == 200


def test_an_event_id_is_a_uuid() -> None:
    """Other programs may keep the ids of events as UUIDs: they are, in the canonical form."""
    made = ids.new_event_id()
    assert str(uuid.UUID(made)) == made
    assert uuid.UUID(made).version == 8
    assert uuid.UUID(made).variant == uuid.RFC_4122
