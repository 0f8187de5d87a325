"""What a check says."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found.

    `remedy` says what to do, and is empty if there is nothing to do. `is_checked` is False for what could not be
    looked at from here: then the text says why, the remedy how to look at it, and nothing is known to be amiss.
    """

    check: str
    text: str
    remedy: str = ""
    is_checked: bool = True

    @property
    def is_well(self) -> bool:
        """True unless something is known to be amiss."""
        return not self.remedy or not self.is_checked
