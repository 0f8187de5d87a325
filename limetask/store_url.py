"""The URL of the status store: which ones are understood, and what is wrong with all others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import unquote

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from limetask.errors import StoreUrlError

PREPARE_THRESHOLD = "prepare_threshold"
"""The one option of a PostgreSQL URL that is not libpq's own: how often a statement runs before it is prepared."""

_DRIVERS = {
    "sqlite": "sqlite",
    "sqlite+pysqlite": "sqlite",
    "postgres": "postgresql+psycopg",
    "postgresql": "postgresql+psycopg",
    "postgresql+psycopg": "postgresql+psycopg",
}
_URL_EXAMPLE = (
    "LIMETASK_STORE_URL looks like sqlite:////var/lib/limetask/status.db (four slashes before an absolute path) "
    "or postgresql://user:password@host:5432/database (with special characters percent-encoded)"
)
# libpq looks at these when it connects. Then it would be a fault of the store, to be tried again.
_NUMBERS = {
    PREPARE_THRESHOLD,
    "connect_timeout",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "tcp_user_timeout",
}
_CHOICES = {
    "sslmode": ("disable", "allow", "prefer", "require", "verify-ca", "verify-full"),
    "target_session_attrs": ("any", "read-write", "read-only", "primary", "standby", "prefer-standby"),
}
_MANY = {"host", "port", "hostaddr", "options"}


def parse_store_url(url: str) -> URL:
    """Return `url` with the driver that limetask uses; white space around it does not count.

    Raises StoreUrlError, which shows no password.
    """
    url = url.strip()
    _check_text(url)
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        # Without the cause, whose text may be the password.
        raise StoreUrlError(f"the status store's URL cannot be read{_why_unreadable(url)}. {_URL_EXAMPLE}") from None
    driver = _DRIVERS.get(parsed.drivername.lower())
    if driver is None:
        raise StoreUrlError(f"the status store cannot be {parsed.drivername!r}{_other_driver(parsed)}. {_URL_EXAMPLE}")
    parsed = parsed.set(drivername=driver)
    return _checked_sqlite_url(parsed) if driver == "sqlite" else _checked_postgresql_url(parsed)


def sqlite_path(url: URL) -> Path:
    """Return the file that a parsed SQLite URL names."""
    return Path(url.database or "")


def shown_url(url: URL) -> str:
    """Return a parsed URL for messages, without what may be secret."""
    return url.set(drivername=url.get_backend_name(), query={}).render_as_string(hide_password=True)


def check_options(given: Mapping[str, str | tuple[str, ...]], known: Iterable[str]) -> None:
    """Raise StoreUrlError unless these options of a PostgreSQL URL are `known` ones, with values that can be right."""
    for name, value in given.items():
        if name not in known and name != PREPARE_THRESHOLD:
            raise _wrong_option(name, "there is no such option")
        if isinstance(value, str):
            _check_option(name, value)
        elif name not in _MANY:
            raise _wrong_option(name, "it is given twice")


def _check_option(name: str, value: str) -> None:
    if name in _NUMBERS and not (value.isascii() and value.isdigit()):
        raise _wrong_option(name, f"it is a whole number, not {value!r}")
    if value not in _CHOICES.get(name, (value,)):
        raise _wrong_option(name, f"it is one of {', '.join(_CHOICES[name])}, not {value!r}")


def _wrong_option(name: str, problem: str) -> StoreUrlError:
    return StoreUrlError(
        f"the status store's URL has the option {name!r} after its question mark: {problem}. Options are those of "
        f"libpq, as connect_timeout and sslmode, and {PREPARE_THRESHOLD}"
    )


def _why_unreadable(url: str) -> str:
    address = url.partition("//")[2].rpartition("@")[2].partition("/")[0]
    if "," in address:
        return ": several hosts with ports are options, as in postgresql://user:password@/database?host=h1:5432&host=h2:5432"
    if address.count(":") > 1 and "[" not in address:
        return ": an address of IPv6 is written in brackets, as in postgresql://[::1]:5432/database"
    return ""


def _other_driver(url: URL) -> str:
    backend = url.drivername.lower().partition("+")[0]
    return f": limetask brings its own driver, so write {backend}://" if backend in _DRIVERS else ""


def _check_text(url: str) -> None:
    if not url.isprintable():
        raise StoreUrlError(
            f"the status store's URL has a line break, or another character that cannot be seen, in it. {_URL_EXAMPLE}"
        )
    try:
        decoded = unquote(url, errors="strict")
    except UnicodeDecodeError:
        # Without the cause, whose text holds the password.
        raise StoreUrlError(
            "the status store's URL has something percent-encoded in it that is not UTF-8: a % that belongs to a name "
            f"or a password is written %25. {_URL_EXAMPLE}"
        ) from None
    if "\0" in decoded:
        raise StoreUrlError(f"the status store's URL has a NUL character in it. {_URL_EXAMPLE}")
    if url[:1] in ("'", '"'):
        raise StoreUrlError(f"the status store's URL is in quotes: leave them out. {_URL_EXAMPLE}")


def _checked_sqlite_url(url: URL) -> URL:
    if url.host or url.query:
        raise StoreUrlError(f"the status store's URL must be sqlite:/// and a path alone. {_URL_EXAMPLE}")
    if url.database in (None, "", ":memory:") or str(url.database).startswith("file:"):
        raise StoreUrlError(
            f"the status store must be a file, since several processes share it: not {url}. {_URL_EXAMPLE}"
        )
    path = sqlite_path(url)
    if not path.is_absolute():
        raise StoreUrlError(
            f"the status store's path {url.database!r} is relative, so it would be another file in each folder that a "
            f"program is started in. In this one it is sqlite:///{path.absolute()}. {_URL_EXAMPLE}"
        )
    return url


def _checked_postgresql_url(url: URL) -> URL:
    # After a raw @ in a password, the rest of the password is taken for the host.
    if "@" in f"{url.host}{url.database}":
        raise StoreUrlError(f"the status store's URL cannot be read: an @ is out of place. {_URL_EXAMPLE}")
    # The zone of an address, as in fe80::1%25eth0, is encoded as everything else is.
    return url.set(host=unquote(url.host)) if url.host and ":" in url.host else url
