"""Where an SQLite store may be made: only where somebody wants it."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path

from sqlalchemy import URL

from limetask.errors import StoreUrlError
from limetask.settings import default_store_path
from limetask.store_url import shown_url, sqlite_path

# Until somebody changes the URL or the folder: to try again would be in vain.
_LASTING = frozenset(
    {
        errno.EACCES,
        errno.EINVAL,
        errno.ELOOP,
        errno.ENAMETOOLONG,
        errno.ENOENT,  # in a folder that is there, as /proc, which takes no files
        errno.ENOTDIR,
        errno.EOPNOTSUPP,
        errno.EPERM,
        errno.EROFS,
    }
)
# SQLite's own limit is 512 bytes, with the "-journal" that it appends.
_MAX_PATH_BYTES = 504
_SQLITE_HEADER = b"SQLite format 3\0"


def check_place(url: URL) -> None:
    """Raise StoreUrlError if there can be no SQLite file where this URL has it. The default file's folder is made.

    No other is: a folder that is not there is more often misspelt than missing, and nobody would read what is recorded.
    Raises OSError for what may pass, such as a full disk.
    """
    if url.get_backend_name() != "sqlite":
        return
    path = sqlite_path(url)
    try:
        _check_path(path, shown_url(url))
    except OSError as exc:
        if exc.errno not in _LASTING:
            raise
        raise StoreUrlError(
            f"the status store {shown_url(url)} cannot be made: {exc.strerror}. Correct LIMETASK_STORE_URL, or let "
            f"this user write to the folder {path.parent}"
        ) from exc


def _check_path(path: Path, shown: str) -> None:
    if path == default_store_path():
        path.parent.mkdir(parents=True, exist_ok=True)
    if not path.parent.is_dir():
        raise StoreUrlError(
            f"the status store {shown} cannot be made: there is no folder {path.parent}. Make it, or correct "
            "LIMETASK_STORE_URL, which all other programs need as well"
        )
    if len(os.fsencode(os.path.realpath(path))) > _MAX_PATH_BYTES:
        raise StoreUrlError(
            f"the status store {shown} cannot be made: SQLite takes paths of {_MAX_PATH_BYTES} bytes. Have "
            "LIMETASK_STORE_URL name a file with a shorter one"
        )
    if path.is_dir():
        raise StoreUrlError(f"the status store {shown} is a folder: have LIMETASK_STORE_URL name a file in it")
    # The file with the longest name of those that come with the database.
    longest = lock_file_of(path)
    with contextlib.suppress(FileNotFoundError):
        longest.lstat()  # raises OSError if it cannot have that name
    if not path.exists():
        longest.touch()
    elif not path.is_file() or _is_something_else(path):
        raise StoreUrlError(
            f"the status store {shown} is a file that is not a database: correct LIMETASK_STORE_URL, which "
            "names a file that limetask makes itself"
        )


def lock_file_of(database: Path) -> Path:
    """Return the file that processes lock while one of them changes the database's schema."""
    return database.with_name(f"{database.name}.upgrade-lock")


def _is_something_else(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            beginning = file.read(len(_SQLITE_HEADER))
    except OSError:
        return False  # not there yet, or it is told when the database is opened
    return beginning not in (b"", _SQLITE_HEADER)
