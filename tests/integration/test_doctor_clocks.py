"""What `limetask doctor` says of clocks, from rows in real stores and from a real PostgreSQL's clock."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from limetask import ids
from limetask.doctor.clocks import examine_clocks
from limetask.doctor.finding import Finding
from limetask.message import Started
from limetask.store import Store
from limetask_worker import schema
from limetask_worker.store_writer import StoreWriter

HOSTS = "clocks of the hosts"
DATABASE = "clock of the database"

Record = Callable[..., None]


@pytest.fixture
def migrated_url(store_url: str) -> str:
    """The URL of an empty store, once of each kind."""
    schema.upgrade(store_url)
    return store_url


@pytest.fixture
def record(migrated_url: str) -> Iterator[Record]:
    """Record that a host started a task, so many seconds from now, that was sent so many seconds from now."""
    with closing(StoreWriter(migrated_url)) as writer:

        def write(host: str, *, sent: float, started: float) -> None:
            now = datetime.now(UTC)
            task_id = ids.new_task_id("acme", (now + timedelta(seconds=sent)).timestamp())
            writer.merge(
                [
                    Started(
                        task_id=task_id,
                        task_name="shop.tasks.add",
                        app="acme",
                        attempt=1,
                        worker=f"{host}.4711.c0ffee.3",
                        acks_late=False,
                        sent_at=ids.sent_at(task_id),
                        started_at=now + timedelta(seconds=started),
                    )
                ]
            )

        yield write


def findings(store_url: str) -> dict[str, Finding]:
    with closing(Store(store_url)) as store:
        return {finding.check: finding for finding in examine_clocks(store)}


def test_clocks_that_agree_are_well(migrated_url: str, record: Record) -> None:
    """A task that waited, and one that started a bit before it was sent, are as they should be."""
    record("web-1.example", sent=-60, started=-30)
    record("web-1.example", sent=-10, started=-10.8)
    found = findings(migrated_url)[HOSTS]
    assert found == Finding(HOSTS, "of the newest 2 tasks none started before it was sent, or in the future")


def test_a_worker_behind_its_producers_is_named(migrated_url: str, record: Record) -> None:
    """The host is named, without what else is in the worker's name, with the largest difference and a remedy."""
    record("db.example", sent=-60, started=-59)
    record("web-1.example", sent=-60, started=-61.5)
    record("web-1.example", sent=-60, started=-100)
    found = findings(migrated_url)[HOSTS]
    assert not found.is_well
    assert "tasks started on web-1.example up to 40 s before they were sent" in found.text
    assert "db.example" not in found.text
    assert "chrony" in found.remedy


def test_clocks_ahead_of_this_machine_are_named(migrated_url: str, record: Record) -> None:
    """What was started in the future has the host's name; what was sent in the future has no name to tell."""
    record("fast.example", sent=-1, started=300)
    record("web-1.example", sent=7200, started=0)
    found = findings(migrated_url)[HOSTS]
    assert not found.is_well
    assert "the clock of fast.example is at least 300 s ahead of this machine's" in found.text
    assert "the clock of a producer is at least 7,200 s ahead of this machine's" in found.text


def test_old_rows_and_none_are_no_finding(migrated_url: str, record: Record) -> None:
    """A clock that was wrong the day before yesterday is not amiss; without newer tasks nothing is claimed."""
    record("web-1.example", sent=-2 * 86400, started=-3 * 86400)
    found = findings(migrated_url)[HOSTS]
    assert found.is_well
    assert not found.is_checked
    assert "nothing to compare" in found.text


def test_the_newest_rows_are_found_by_the_primary_key(migrated_url: str, record: Record) -> None:
    """The newest come first, as many as asked for."""
    for sent in (-30, -10, -20):
        record("web-1.example", sent=sent, started=sent + 5)
    now = datetime.now(UTC)
    with closing(Store(migrated_url)) as store:
        [newest, second] = store.newest_times(2, now - timedelta(hours=1))
        [within] = store.newest_times(9, now - timedelta(seconds=15))
    assert newest.sent_at > second.sent_at > now - timedelta(seconds=25)
    assert within == newest
    assert newest.worker == "web-1.example.4711.c0ffee.3"


def test_sqlite_has_no_clock_of_its_own(sqlite_url: str) -> None:
    """Its clock is this machine's, so there is nothing to compare."""
    schema.upgrade(sqlite_url)
    assert DATABASE not in findings(sqlite_url)


def test_the_databases_clock_agrees(postgresql_url: str) -> None:
    """PostgreSQL on this machine tells the same time, and the finding how exact that is."""
    schema.upgrade(postgresql_url)
    found = findings(postgresql_url)[DATABASE]
    assert found.is_well
    assert found.text.startswith("it and this machine's differ by 0.")


@pytest.mark.parametrize(("ahead", "text"), [(90, "it is 90 s "), (-5, "it is 5.0")])
def test_a_database_with_another_time_is_found(postgresql_url: str, ahead: int, text: str) -> None:
    """A clock that is more than a second off is found, whichever side it is on."""
    schema.upgrade(postgresql_url)
    found = findings(with_clock(postgresql_url, ahead))[DATABASE]
    assert not found.is_well
    assert found.text.startswith(text)
    assert ("ahead of this machine's" if ahead > 0 else "behind this machine's") in found.text
    assert "synchronise the clocks of this host and the database's" in found.remedy


def with_clock(url: str, seconds: int) -> str:
    """Return a URL by which the database tells another time: with a function that is found before its own."""
    engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(sqlalchemy.text("CREATE SCHEMA other"))
        connection.execute(
            sqlalchemy.text(
                "CREATE FUNCTION other.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS "
                f"'SELECT pg_catalog.clock_timestamp() + {seconds} * interval ''1 second'''"
            )
        )
    engine.dispose()
    return f"{url}?options=-csearch_path%3Dother,pg_catalog,public"
