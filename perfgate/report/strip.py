"""Where the dots go: a strip plot of launches, baseline above head, on one time axis."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

from perfgate.report import format as fmt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from perfgate.records import Tolerance

LEFT, RIGHT, WIDTH = 66.0, 590.0, 600


@dataclass(frozen=True)
class Strip:
    """A drawing in user units of a `WIDTH` x 84 box. `base` and `head` are the dots' x coordinates."""

    base: tuple[str, ...]
    head: tuple[str, ...]
    ticks: tuple[tuple[str, str], ...]
    band: tuple[str, str, str, str] | None
    description: str


def strip(base: Sequence[float], head: Sequence[float], tolerance: Tolerance) -> Strip | None:
    """Coordinates of one value a launch on each side; nothing to draw without a positive value."""
    base, head = _drawable(base), _drawable(head)
    if not base and not head:
        return None
    center = statistics.geometric_mean(base) if base else None
    marks = (
        [] if center is None else [center, center * (1 + tolerance.ignore), center * (1 + tolerance.catch)]
    )
    low, high = min([*base, *head, *marks]), max([*base, *head, *marks])
    pad = (high - low) * 0.06 or low * 0.01
    low, high = low - pad, high + pad

    def x(value: float) -> str:
        return f"{LEFT + (RIGHT - LEFT) * (value - low) / (high - low):.4g}"

    band = None
    if center is not None:
        begin, middle, end = (float(x(mark)) for mark in marks)
        band = (
            f"{begin:.4g}",
            f"{max(0.0, middle - begin):.4g}",
            f"{middle:.4g}",
            f"{max(0.0, end - middle):.4g}",
        )
    return Strip(
        base=tuple(x(value) for value in base),
        head=tuple(x(value) for value in head),
        ticks=tuple((x(tick), fmt.duration(tick)) for tick in _ticks(low, high)),
        band=band,
        description=f"{_describe('Baseline', base)} {_describe('Head', head)}",
    )


def _drawable(values: Sequence[float]) -> list[float]:
    return [value for value in values if 1e-9 < value < 1e300]


def _describe(side: str, values: Sequence[float]) -> str:
    if not values:
        return f"{side}: no launches."
    launches = "1 launch" if len(values) == 1 else f"{len(values)} launches"
    return f"{side}: {launches}, {fmt.duration(min(values))} to {fmt.duration(max(values))}."


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round values inside the axis."""
    rough = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step)
    return [step * index for index in range(first, first + 6) if step * index <= high]
