"""Acks on their way to the broker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import takewhile


class Acks:
    """Collects the acks of one turn of the loop, and sends one for all that have nothing unacked before them.

    The broker writes each ack to its log, and one for many costs it as much as one for one.
    """

    def __init__(self, send: Callable[[int, bool], None]) -> None:
        """`send` gets a delivery tag, and whether all before it are meant too."""
        self._send = send
        self._unacked: dict[int, None] = {}  # in the order of the tags, which only grow
        self._acked: set[int] = set()

    def delivered(self, tag: int) -> None:
        """Note a delivery that must be acked or given back."""
        self._unacked[tag] = None

    def given_back(self, tag: int) -> None:
        """Note a delivery that will not be acked."""
        self._unacked.pop(tag, None)

    def ack(self, tag: int, *, multiple: bool) -> None:
        """Ack a delivery, with `multiple` all before it too, at the end of this turn of the loop."""
        if not self._acked:
            asyncio.get_running_loop().call_soon(self.flush)
        self._acked.add(tag)
        if multiple:
            self._acked.update(takewhile(tag.__gt__, self._unacked))

    def flush(self) -> None:
        """Send what is collected."""
        if not self._acked:
            return
        acked, self._acked = self._acked, set()
        together = list(takewhile(acked.__contains__, self._unacked))
        if together:
            self._send(together[-1], len(together) > 1)
        for tag in together:
            del self._unacked[tag]
        for tag in sorted(acked.difference(together)):
            self._send(tag, False)
            self._unacked.pop(tag, None)
