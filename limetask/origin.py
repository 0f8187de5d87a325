"""Where something was declared: it tells a reload of a module from a second declaration under the same name."""

from __future__ import annotations

import inspect
import sys
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any

_OWN_PACKAGES = ("limetask", "lime_task")


@dataclass(frozen=True, slots=True)
class Origin:
    """The line of a declaration, its module, and the run of that module's code that the declaration was part of.

    A module's code is loaded anew for each import and each reload, and a statement in an interactive session is
    compiled for itself: the code object is the run. It is released when the run is over.
    """

    place: str
    module: str
    run: weakref.ref[CodeType] | None

    def is_same_run(self, other: Origin) -> bool:
        """Return True if both were declared while their module ran once. None, as in a thread, is one long run."""
        if self.run is None or other.run is None:
            return self.run is other.run
        return self.run() is not None and self.run() is other.run()


def origin_of_caller() -> Origin:
    """Return where the declaration stands that is being made: in the code that called limetask."""
    caller = calling_frame()
    top = _first(caller, _is_module_level)
    return Origin(
        place=f"{caller.f_code.co_filename}:{caller.f_lineno}" if caller else "an unknown place",
        module=top.f_globals.get("__name__", "") if top else "",
        run=weakref.ref(top.f_code) if top else None,
    )


def calling_frame() -> FrameType | None:
    """Return the frame of the code that called limetask, None if there is none."""
    return _first(sys._getframe(), _is_foreign)


def is_redeclaration(old: Callable[..., Any], old_origin: Origin, new: Callable[..., Any], new_origin: Origin) -> bool:
    """Return True if `new` takes the place of `old`: it does the same, or its module has been run again.

    Closures share their code: two functions under one decorator without `functools.wraps` differ in nothing but what
    they hold.
    """
    if _does_the_same(old, new):
        return True
    if (old.__module__, old.__qualname__) != (new.__module__, new.__qualname__):
        return False
    if old_origin.module != new_origin.module or old_origin.is_same_run(new_origin):
        return False
    # Statements of an interactive session are runs of their own: there a name alone says what is meant by it.
    return new_origin.module != "__main__" or "<locals>" not in new.__qualname__


def _does_the_same(old: Callable[..., Any], new: Callable[..., Any]) -> bool:
    """Return True for one function, or for two runs of one `def` that depend on nothing of their run."""
    return old is new or (
        old.__code__ is new.__code__
        and not old.__closure__
        and old.__globals__ is new.__globals__
        and old.__defaults__ == new.__defaults__
        and old.__kwdefaults__ == new.__kwdefaults__
    )


def _first(frame: FrameType | None, is_wanted: Callable[[FrameType], bool]) -> FrameType | None:
    while frame is not None and not is_wanted(frame):
        frame = frame.f_back
    return frame


def _is_foreign(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).partition(".")[0] not in _OWN_PACKAGES


def _is_module_level(frame: FrameType) -> bool:
    return not frame.f_code.co_flags & inspect.CO_OPTIMIZED and frame.f_locals is frame.f_globals
