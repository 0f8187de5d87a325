"""Where an SQLite store may be made: only where somebody wants it."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import URL

from limetask.errors import StoreUrlError
from limetask.settings import default_store_path
from limetask.store_url import shown_url, sqlite_path

_SQLITE_HEADER = b"SQLite format 3\0"


def check_place(url: URL) -> None:
    """Raise StoreUrlError if there can be no SQLite file where this URL has it. The default file's folder is made.

    No other is: a folder that is not there is more often misspelt than missing, and nobody would read what is recorded.
    """
    if url.get_backend_name() != "sqlite":
        return
    path = sqlite_path(url)
    if path == default_store_path():
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_dir():
        raise StoreUrlError(
            f"the status store {shown_url(url)} cannot be made: there is no folder {path.parent}. Make it, or correct "
            "LIMETASK_STORE_URL, which all other programs need as well"
        )
    if path.is_dir():
        raise StoreUrlError(f"the status store {shown_url(url)} is a folder: have LIMETASK_STORE_URL name a file in it")
    if _is_something_else(path):
        raise StoreUrlError(
            f"the status store {shown_url(url)} is a file that is not a database: correct LIMETASK_STORE_URL, which "
            "names a file that limetask makes itself"
        )


def _is_something_else(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_SQLITE_HEADER))
    except OSError:
        return False  # not there yet, or it is told when the database is opened
    return beginning not in (b"", _SQLITE_HEADER)
