"""How strange values and the errors of their own code are shown in messages. Nothing here raises."""

from __future__ import annotations

_LONGEST_VALUE, _LONGEST_ERROR = 80, 500


def shortened(value: object) -> str:
    """Return how a wrong value is shown in an error."""
    try:
        text = repr(value)
    except Exception as exc:  # noqa: BLE001 - of the value's own code
        if type(value) is int:
            return "a whole number of thousands of digits"  # which Python refuses to write
        return f"<{type_name(value)} whose repr raises {type(exc).__name__}>"
    return _cut(text, _LONGEST_VALUE)


def type_name(value: object) -> str:
    """Return the name of a value's type, with its module unless everybody knows it; a lazy object's own type."""
    kind = type(value)
    # Of `type` itself: a metaclass may have its own way to look attributes up.
    module, name = type.__getattribute__(kind, "__module__"), type.__getattribute__(kind, "__qualname__")
    return str(name) if module == "builtins" else f"{module}.{name}"


def error_text(error: BaseException) -> str:
    """Return an error's type and message, as `RuntimeError: the database is gone`."""
    try:
        message = str(error)
    except Exception as exc:  # noqa: BLE001 - of the error's own code
        message = f"(its message raises {type(exc).__name__})"
    return _cut(f"{type(error).__name__}: {message}" if message else type(error).__name__, _LONGEST_ERROR)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[: longest - 3]}..."
