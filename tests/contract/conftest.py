"""A status store of its own for each test, on each database that limetask supports."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from limetask.store import Store
from limetask_worker import schema
from limetask_worker.store_writer import StoreWriter


@pytest.fixture
def migrated_url(store_url: str) -> str:
    """The URL of an empty store that has its schema; `store_url` alone has none."""
    schema.upgrade(store_url)
    return store_url


@pytest.fixture
def store(migrated_url: str) -> Iterator[Store]:
    """The reading side of an empty store."""
    with closing(Store(migrated_url)) as store:
        yield store


@pytest.fixture
def writer(migrated_url: str) -> Iterator[StoreWriter]:
    """The writing side of the same store."""
    with closing(StoreWriter(migrated_url)) as writer:
        yield writer
