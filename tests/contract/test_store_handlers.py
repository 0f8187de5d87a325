"""What the status store promises of event handlers, on every database that it can be kept in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta

import pytest

from limetask.message import HandlerBindings, HandlerGone
from limetask.store import RecordedHandler, Store
from limetask_worker import schema
from limetask_worker.store_writer import RecordRejectedError, StoreWriter

LOADED = datetime(2026, 3, 29, 0, 59, 59, 123456, tzinfo=UTC)
HEARD = LOADED + timedelta(minutes=1)
NOTIFY = "shop.events.notify"


def declared(*bindings: str, name: str = NOTIFY, at: datetime = LOADED) -> HandlerBindings:
    return HandlerBindings(name, bindings, at)


def test_every_handler_is_read_back(store: Store, writer: StoreWriter) -> None:
    """Handlers come by name, with all their patterns, and the moment when they were heard of."""
    handlers = [declared("core.task.#", "größe.*"), declared("x.#", name="a.b")]
    recorded = writer.merge_handlers(handlers, HEARD)
    assert recorded == {NOTIFY: {"core.task.#", "größe.*"}, "a.b": {"x.#"}}
    assert store.handlers() == [
        RecordedHandler("a.b", ("x.#",), HEARD),
        RecordedHandler(NOTIFY, ("core.task.#", "größe.*"), HEARD),
    ]


def test_what_was_bound_before_stays_known(store: Store, writer: StoreWriter) -> None:
    """Another declaration adds its patterns: the queue is bound to the old ones until they are forgotten."""
    writer.merge_handlers([declared("a.#", "b.#")], HEARD)
    later = HEARD + timedelta(hours=1)
    assert writer.merge_handlers([declared("b.#", "c.#")], later) == {NOTIFY: {"a.#", "b.#", "c.#"}}
    writer.forget_bindings(NOTIFY, ["a.#", "never.there"])
    assert store.handlers() == [RecordedHandler(NOTIFY, ("b.#", "c.#"), later)]


def test_declarations_in_any_order_end_in_the_same_patterns(store: Store, writer: StoreWriter) -> None:
    """What is told twice, or by older code later, takes nothing away."""
    old, new = declared("a.#"), declared("b.#", at=LOADED + timedelta(days=1))
    for handler in (new, old, new, old):
        writer.merge_handlers([handler], HEARD)
    assert [handler.bindings for handler in store.handlers()] == [("a.#", "b.#")]


def test_a_handler_that_is_gone_is_forgotten(store: Store, writer: StoreWriter) -> None:
    """Its row goes, and no other; to hear of it twice makes no difference."""
    writer.merge_handlers([declared("a.#"), declared("a.#", name="a.b")], HEARD)
    for _ in range(2):
        writer.delete_handler(HandlerGone(NOTIFY, LOADED + timedelta(microseconds=1)))
    assert [handler.name for handler in store.handlers()] == ["a.b"]


def test_a_handler_that_was_declared_since_stays(store: Store, writer: StoreWriter) -> None:
    """Code that was loaded after the deletion has made the queue anew, whatever older code tells after it."""
    writer.merge_handlers([declared("a.#", at=LOADED + timedelta(seconds=1))], HEARD)
    writer.merge_handlers([declared("a.#", at=LOADED - timedelta(days=1))], HEARD)
    writer.delete_handler(HandlerGone(NOTIFY, LOADED))
    assert [handler.name for handler in store.handlers()] == [NOTIFY]


def test_forgetting_what_is_not_there_changes_nothing(store: Store, writer: StoreWriter) -> None:
    """No row is made by forgetting, and no handlers are no work."""
    writer.forget_bindings(NOTIFY, ["a.#"])
    assert writer.merge_handlers([], HEARD) == {}
    assert store.handlers() == []


def test_two_recorders_lose_no_pattern(store: Store, writer: StoreWriter, migrated_url: str) -> None:
    """A recorder that is about to stop, and the next one, may write the same handler at once."""
    writer.merge_handlers([declared("first.#")], HEARD)

    def write(prefix: str) -> None:
        with closing(StoreWriter(migrated_url)) as own:
            for number in range(20):
                own.merge_handlers([declared(f"{prefix}.{number}")], HEARD)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(write, ["a", "b"]))
    [handler] = store.handlers()
    assert len(handler.bindings) == 41


def test_a_name_with_nul_is_refused_by_postgresql(postgresql_url: str) -> None:
    """What the database refuses is told apart from a database that cannot be used."""
    schema.upgrade(postgresql_url)
    with closing(StoreWriter(postgresql_url)) as writer, pytest.raises(RecordRejectedError):
        writer.merge_handlers([declared("a.#", name="a\0b")], HEARD)


def test_a_store_without_a_table_has_no_handlers(store_url: str) -> None:
    """Nothing was ever recorded: that is no error."""
    with closing(Store(store_url)) as store:
        assert store.handlers() == []
