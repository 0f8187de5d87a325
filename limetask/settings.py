"""Every setting, in one frozen object. This module alone reads the environment."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Collection, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any

from limetask.errors import BrokerUrlError, ConfigurationError, StoreUrlError, UsageError
from limetask.foreign import shortened
from limetask.log_thread import own_logger

logger = own_logger(__name__)

MAX_NAMESPACE_BYTES = 100
MIN_SIGNING_KEY_BYTES = 32
"""As long as what HMAC-SHA256 makes of it: a shorter key is easier to guess than a signature."""

# Up to the last @, since a password may hold anything when it is not percent-encoded.
_PASSWORD = re.compile(r"(?<=//)([^:@]*):.*@", re.DOTALL)
_PASSWORD_WITHOUT_SCHEME = re.compile(r"^([^:@]*):.*@", re.DOTALL)
# Without an @ it is one if it cannot be a port: the host has been forgotten.
_PASSWORD_WITHOUT_HOST = re.compile(r"(?<=//)([^:@/\[]*):(?!\d*(?:[/?#,;]|$))[^@]*$", re.DOTALL)
_CONTROL_CHARACTER = re.compile(r"[\x00-\x1f\x7f]")
_QUOTES = ("'", '"', "`")
_PASSWORD_OPTION = re.compile(r"(?<=password=)[^&]*")


def _setting(default: Any, description: str) -> Any:
    return field(default=default, metadata={"description": description})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How limetask finds its broker and store, and its limits.

    Every field is also an environment variable: `broker_url` is `LIMETASK_BROKER_URL`. What is given here wins
    over the environment when it is passed to `configure`. Raises ConfigurationError for a value out of range.
    """

    broker_url: str = _setting("amqp://", "RabbitMQ: `amqp://user:password@host:port/vhost`, or `amqps://...`")
    store_url: str = _setting(
        "",
        "Status store: `sqlite:////path/status.db` or `postgresql://user:password@host/database`; "
        "empty: an SQLite file in the user's data folder",
    )
    broker_ca: str = _setting(
        "", "File with the certificates (PEM) that vouch for the broker of an `amqps://` URL; empty: the system's"
    )
    broker_certificate: str = _setting(
        "", "File with our own certificate (PEM), for a broker that asks for one; empty: none is shown"
    )
    broker_key: str = _setting("", "File with that certificate's private key (PEM); empty: it is in the same file")
    signing_keys: str = _setting(
        "",
        "Secrets that task messages are signed with, joined by commas: the first signs, all verify; "
        "empty: messages are not signed, and signatures do not count",
    )
    namespace: str = _setting("limetask", "First word of the name of every queue and exchange")
    application_factory: str = _setting(
        "",
        "`package.module:callable` that makes an application from its identifier; empty: `limetask.Application`",
    )
    send_timeout: float = _setting(10.0, "Seconds in which the broker must confirm a task")
    connect_timeout: float = _setting(5.0, "Seconds for one attempt to connect to the broker")
    heartbeat: int = _setting(30, "Seconds without a sign of life after which a connection counts as dead")
    worker_timeout: float = _setting(60.0, "Seconds without a sign of life after which a worker's host counts as dead")
    consumer_timeout: float = _setting(
        1800.0,
        "The broker's consumer timeout in seconds: no late-ack task and no event handler may run for as long",
    )
    max_deliveries: int = _setting(5, "How often a late-ack task may begin before it is dead-lettered")
    retention_days: float = _setting(30.0, "Days for which a task's status can be read")
    max_arguments_bytes: int = _setting(1024 * 1024, "Largest encoded arguments of one task, in bytes")
    max_result_bytes: int = _setting(
        1024 * 1024,
        "Largest result of one task as JSON, in bytes; its event has some 500 more, and RabbitMQ 4 takes 16 MiB",
    )

    def __post_init__(self) -> None:
        for one in fields(self):
            _check_type(one, getattr(self, one.name))
        for name in _EXACT:
            _check_text(name, getattr(self, name))
        _check_namespace(self.namespace)
        signing_secrets(self.signing_keys)
        for name in _LARGEST:
            _check_number(name, getattr(self, name))

    def __repr__(self) -> str:
        """Show everything but secrets, since a repr ends in logs and error reports."""
        return (
            f"Settings({', '.join(f'{one.name}={_shown(one.name, getattr(self, one.name))}' for one in fields(self))})"
        )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings that the `LIMETASK_*` variables give; raises ConfigurationError for a wrong one."""
        given = {
            name: _parse(variable, environment[variable], parse)
            for name, variable, parse in _variables()
            if environment.get(variable, "") != ""
        }
        return cls(**given)

    @property
    def resolved_store_url(self) -> str:
        """The store's URL, the default file's if none is set."""
        return self.store_url or f"sqlite:///{default_store_path()}"


_YEAR_SECONDS = 366 * 24 * 3600
_LARGEST = {
    "send_timeout": _YEAR_SECONDS,
    "connect_timeout": _YEAR_SECONDS,
    "worker_timeout": _YEAR_SECONDS,
    "consumer_timeout": _YEAR_SECONDS,
    "heartbeat": 65_535,  # AMQP has 16 bits for it
    "max_deliveries": 50,  # the broker's own limit, which also counts clean returns, is 100
    "retention_days": 100 * 366,
    "max_arguments_bytes": 16 * 1024 * 1024,  # the largest message that RabbitMQ 4 takes
    "max_result_bytes": 16 * 1024 * 1024,
}

# What is used as it stands: a line break at the end would name another file, or another user's password.
_EXACT = ("broker_url", "store_url", "broker_ca", "broker_certificate", "broker_key", "application_factory")
_ERRORS = {"broker_url": BrokerUrlError, "store_url": StoreUrlError}
_TYPES = {str: "text", int: "a whole number", float: "a number"}

# Variables that are not settings: of limetask's own tests, and those with which Kubernetes tells of a service that is
# called limetask.
_OTHER_VARIABLES = re.compile(
    r"(TEST|BENCH|BENCHMARK|FAULTS|SOAK|SERVICES)(_.*)?|SQLITE|POSTGRESQL|.*_IMAGE|(.*_)?(SERVICE_(HOST|PORT.*)|PORT(_\d.*)?)"
)
_OUR_VARIABLES = re.compile(r"LIME_?TASKS?_(.+)", re.IGNORECASE)

_configured: Settings | None = None


def configure(settings: Settings) -> None:
    """Use `settings` in this process from now on, instead of the environment's.

    Call it once, before the first task is sent: connections that are open already keep what they were opened with.
    Raises UsageError for anything but Settings.
    """
    if not isinstance(settings, Settings):
        raise UsageError(
            f"configure takes Settings, as in configure(Settings(send_timeout=5)), not {type(settings).__name__}"
        )
    global _configured
    _configured = settings


def current_settings() -> Settings:
    """Return the settings given to `configure`, or else the environment's, read at the first call.

    Logs a warning then for each variable that looks like a setting, and is none.
    """
    global _configured
    if _configured is None:
        _configured = Settings.from_environment()
        for warning in unknown_variables():
            logger.warning("%s", warning)
    return _configured


def unknown_variables(environment: Mapping[str, str] = os.environ) -> list[str]:
    """Return a sentence for each variable that looks like a setting, and is none."""
    known = {environment_variable(setting) for setting in fields(Settings)}
    return [
        _unknown(name, match[1].upper(), known)
        for name in sorted(environment)
        if name not in known and (match := _OUR_VARIABLES.fullmatch(name)) and not _OTHER_VARIABLES.fullmatch(match[1])
    ]


def _unknown(name: str, rest: str, known: Collection[str]) -> str:
    # Without what all have in common, which would make them all alike.
    close = difflib.get_close_matches(rest, [one.removeprefix("LIMETASK_") for one in known], n=1, cutoff=0.7)
    hint = f"did you mean LIMETASK_{close[0]}?" if close else "limetask's docs/settings.md lists all"
    return f"the environment variable {name} is not a setting of limetask and has no effect: {hint}"


def environment_variable(setting: Field[Any]) -> str:
    """Return the name of the environment variable of one field of Settings."""
    return f"LIMETASK_{setting.name.upper()}"


def settings_table() -> str:
    """Return all settings as a Markdown table: variable, default, meaning."""
    rows = [
        f"| `{environment_variable(setting)}` | {_shown_default(setting)} | {setting.metadata['description']} |"
        for setting in fields(Settings)
    ]
    return "\n".join(["| variable | default | meaning |", "|---|---|---|", *rows])


def signing_secrets(signing_keys: str) -> tuple[bytes, ...]:
    """Return the single keys of `Settings.signing_keys`; raises ConfigurationError if one is too short."""
    if not signing_keys:
        return ()
    secrets = tuple(key.strip().encode(errors="surrogatepass") for key in signing_keys.split(","))
    for number, secret in enumerate(secrets, start=1):
        if len(secret) < MIN_SIGNING_KEY_BYTES:
            raise ConfigurationError(
                f"key {number} of LIMETASK_SIGNING_KEYS has {len(secret)} bytes, and needs at least "
                f"{MIN_SIGNING_KEY_BYTES}: make one with `python -c 'import secrets; print(secrets.token_hex(32))'`"
            )
    return secrets


def stray_characters(text: str) -> str | None:
    """Return what does not belong around or in a URL, a path or a name, None if there is nothing."""
    if text != text.strip():
        return "a space or a line break comes before or after it: remove it (`echo` writes one, `printf %s` does not)"
    if text[:1] in _QUOTES or text[-1:] in _QUOTES:
        return "it is in quotation marks: remove them (a file for `docker --env-file`, say, has none)"
    if _CONTROL_CHARACTER.search(text):
        return "it has a line break or another control character in it: remove it"
    return None


def hidden_password(url: str) -> str:
    """Return a URL without its password, for messages and logs; also one that is malformed."""
    pattern = _PASSWORD if "//" in url else _PASSWORD_WITHOUT_SCHEME
    hidden = _PASSWORD_WITHOUT_HOST.sub(r"\1:***", pattern.sub(r"\1:***@", url))
    return _PASSWORD_OPTION.sub("***", hidden)


def default_store_path() -> Path:
    """Return where the status store is when nothing is set: in the user's data folder."""
    return _data_folder() / "limetask" / "status.db"


def _data_folder() -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share")


def _shown(name: str, value: Any) -> str:
    match name:
        case "broker_url" | "store_url":
            return repr(hidden_password(value))
        case "signing_keys" if value:
            return "'***'"
    return repr(value)


def _variables() -> list[tuple[str, str, type]]:
    return [(setting.name, environment_variable(setting), type(setting.default)) for setting in fields(Settings)]


def _parse(variable: str, text: str, parse: type) -> Any:
    try:
        return parse(text)
    except ValueError as exc:
        example = " such as 2.5" if parse is float else ""
        raise ConfigurationError(f"{variable} is {shortened(text)}: it must be {_TYPES[parse]}{example}") from exc


def _check_type(setting: Field[Any], value: object) -> None:
    wanted = type(setting.default)
    allowed = (int, float) if wanted is float else wanted
    if isinstance(value, bool) or not isinstance(value, allowed):
        name = f"{setting.name} ({environment_variable(setting)})"
        raise ConfigurationError(f"{name} must be {_TYPES[wanted]}, and not of type {type(value).__name__}")


def _check_text(name: str, text: str) -> None:
    stray = stray_characters(text)
    if stray:
        raise _ERRORS.get(name, ConfigurationError)(f"{name} (LIMETASK_{name.upper()}) cannot be right: {stray}")


def _check_number(name: str, value: float) -> None:
    if not value > 0:
        raise ConfigurationError(f"{name} (LIMETASK_{name.upper()}) must be more than 0, not {shortened(value)}")
    if value > _LARGEST[name]:
        raise ConfigurationError(
            f"{name} (LIMETASK_{name.upper()}) must be at most {_LARGEST[name]:,}, not {shortened(value)}"
        )


def _check_namespace(namespace: str) -> None:
    words = namespace.split(".")
    if (
        not namespace.isprintable()
        or not all(words)
        or any(character.isspace() or character in "*#" for character in namespace)
    ):
        raise ConfigurationError(f"namespace {namespace!r} must be words joined by dots, without spaces, * or #")
    if len(namespace.encode()) > MAX_NAMESPACE_BYTES:
        raise ConfigurationError(f"namespace {namespace!r} is longer than {MAX_NAMESPACE_BYTES} bytes")


def _shown_default(setting: Field[Any]) -> str:
    return f"`{setting.default}`" if setting.default != "" else "empty"
