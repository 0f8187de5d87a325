"""Standard input, output and error: whatever becomes of them, in the shell or in a body, the worker goes on."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TextIO

_MODES = {"stdin": "r", "stdout": "w", "stderr": "w"}


def open_missing_streams() -> None:
    """Open the null device in place of the standard streams that are closed, for this process and those it starts.

    Else the next sockets would get their descriptors, and Python does not start with a socket as its standard output.
    """
    for number, (name, mode) in enumerate(_MODES.items()):
        try:
            os.fstat(number)
        except OSError:
            nowhere = os.open(os.devnull, os.O_RDWR)  # it gets the lowest descriptor that is free, which is this one
            os.set_inheritable(nowhere, True)
            setattr(sys, name, open(nowhere, mode, closefd=False))  # noqa: SIM115


def lend_streams() -> None:
    """Have user code write to standard output and error through objects of its own.

    If it closes them, the descriptors stay open: another connection must not get them, and our log lines go on.
    """
    sys.stdout = _lent(sys.stdout)
    sys.stderr = _lent(sys.stderr)


def flush_streams() -> None:
    """Write what is left to be written, if that can be: a body may have closed them, or whoever reads may be gone."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def _lent(stream: TextIO) -> TextIO:
    lent = open(stream.fileno(), "w", encoding=stream.encoding, errors=stream.errors, closefd=False)  # noqa: SIM115
    lent.reconfigure(line_buffering=bool(stream.line_buffering), write_through=getattr(stream, "write_through", False))
    return lent
