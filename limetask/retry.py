"""How often something is tried again, and after how long."""

from __future__ import annotations

import math
from dataclasses import dataclass

from limetask.errors import DeclarationError
from limetask.foreign import shortened
from limetask.topology import DELAY_LEVELS

_LONGEST_DELAY = 2**DELAY_LEVELS - 1


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again `times` times: after `delay` seconds, then after `factor` times as many, and so on up to `longest`.

    The waiting message is at the broker, which counts whole seconds: delays are rounded up. Raises DeclarationError
    for what cannot be.
    """

    times: int = 5
    delay: float = 1.0
    factor: float = 2.0
    longest: float = 3600.0

    def __post_init__(self) -> None:
        if type(self.times) is not int or self.times < 0:
            raise DeclarationError(f"Retry: times is a whole number from 0, not {shortened(self.times)}")
        for option, least in (("delay", 0.0), ("factor", 1.0), ("longest", 0.0)):
            value = getattr(self, option)
            if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < math.inf:
                raise DeclarationError(f"Retry: {option} is a number from {least:g}, not {shortened(value)}")
        if self.longest > _LONGEST_DELAY:
            raise DeclarationError(
                f"Retry: longest may be {_LONGEST_DELAY} seconds (194 days), for the broker holds nothing longer, "
                f"not {shortened(self.longest)}"
            )

    def delay_before(self, number: int) -> float | None:
        """Return after how many seconds the retry `number`, from 1, is due; None if there are not so many."""
        if number > self.times:
            return None
        if self.delay == 0:
            return 0.0
        try:
            return min(self.longest, self.delay * float(self.factor) ** (number - 1))
        except OverflowError:
            return self.longest
