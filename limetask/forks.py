"""Sockets that forked processes must not keep.

A forked process has a copy of every socket of its parent. As long as it lives, whoever is at the other end does not
notice that the parent has died: the broker would not deliver its messages to anybody else.
"""

from __future__ import annotations

import os
import socket
import weakref

_sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()


def keep_from_forks(own: socket.socket) -> None:
    """Close the copy of a socket in processes that Python code forks from now on; the socket itself is left alone."""
    _sockets.add(own)


def _close_copies() -> None:
    # The objects that use a descriptor exist in this process too. If they close it, or are collected, its number must
    # not be that of a file which was opened since. So it stays open, to nowhere.
    descriptors = [own.fileno() for own in _sockets if own.fileno() >= 0]
    _sockets.clear()
    for descriptor in descriptors:
        os.close(descriptor)
    if descriptors:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for descriptor in descriptors:
            if descriptor != nowhere:
                os.dup2(nowhere, descriptor, inheritable=False)
        if nowhere not in descriptors:
            os.close(nowhere)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_copies)
