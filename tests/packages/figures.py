"""Tasks that return what other libraries make, as tasks that calculate do."""

from __future__ import annotations

from enum import Enum
from typing import Any

import numpy as np
import pydantic

from limetask import Application, task


class Trend(Enum):
    UP = "up"


class Month(pydantic.BaseModel):
    name: str
    trend: Trend


@task
def summarize(app: Application, prices: list[float]) -> dict[str, Any]:
    """Return a mean, a histogram and a model, as the libraries have them."""
    months, counts = np.unique(np.array([1, 1, 2]), return_counts=True)
    return {
        "mean": np.mean(prices),
        "prices": np.sort(prices),
        "by_month": dict(zip(months, counts, strict=True)),
        "last": Month(name="May", trend=Trend.UP),
    }


@task
def nothing_to_divide(app: Application) -> float:
    """Return numpy's mean of nothing."""
    return float(np.float64("nan"))
