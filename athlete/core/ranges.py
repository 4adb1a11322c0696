"""Numbers with the range that they may have, as annotations: what may be set stands beside the field.

lr: NonNegativeFloat | Schedule = 5e-4
n_step: PositiveInt = 1
"""

from __future__ import annotations

import math
from typing import Annotated, NamedTuple


class Range(NamedTuple):
    """Inclusive bounds of a number. Infinity itself is refused unless it is a way to say "no limit"."""

    low: float = -math.inf
    high: float = math.inf
    unlimited: bool = False

    def __contains__(self, value: object) -> bool:
        assert isinstance(value, int | float)
        return self.low <= value <= self.high and (math.isfinite(value) or self.unlimited)

    def __str__(self) -> str:
        if math.isinf(self.low) and math.isinf(self.high):
            return "that is finite"
        if math.isinf(self.high):
            return f"of at least {self.low:g}"
        return f"between {self.low:g} and {self.high:g}"


NonNegativeFloat = Annotated[float, Range(0.0)]
PositiveFloat = Annotated[float, Range(1e-6)]
Fraction = Annotated[float, Range(0.0, 1.0)]
Limit = Annotated[float, Range(0.0, unlimited=True)]  # infinity: no limit
PositiveInt = Annotated[int, Range(1)]
NonNegativeInt = Annotated[int, Range(0)]
