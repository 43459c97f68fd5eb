"""Where the dots go: a strip plot of launches, baseline above head, on one time axis."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from perfgate.records import Interval, Tolerance
from perfgate.report import format as fmt
from perfgate.report.i18n import N_, gettext, ngettext

LEFT, RIGHT, WIDTH = 66.0, 590.0, 600


@dataclass(frozen=True)
class Strip:
    """A drawing in user units of a `WIDTH` x 84 box. `base` and `head` are the dots' x coordinates,
    `interval` the ends and the middle of the gate's estimate of head."""

    base: tuple[str, ...]
    head: tuple[str, ...]
    ticks: tuple[tuple[str, str], ...]
    band: tuple[str, str, str, str] | None
    interval: tuple[str, str, str] | None
    description: str


def strip(
    base: Sequence[float], head: Sequence[float], tolerance: Tolerance, ratio: Interval | None = None
) -> Strip | None:
    """Coordinates of one value a launch on each side; nothing to draw without a positive value.

    `ratio` is drawn where it falls: from the geometric mean of base, which it is a multiple of.
    """
    base, head = _drawable(base), _drawable(head)
    if not base and not head:
        return None
    center = statistics.geometric_mean(base) if base else None
    marks = (
        [] if center is None else [center, center * (1 + tolerance.ignore), center * (1 + tolerance.catch)]
    )
    ends = _ends(center, ratio)
    low, high = min([*base, *head, *marks, *ends]), max([*base, *head, *marks, *ends])
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
        ticks=tuple((x(tick), fmt.duration(tick)) for tick in ticks(low, high, 4)),
        band=band,
        interval=(x(ends[0]), x(ends[1]), x(ends[2])) if ends else None,
        description=" ".join(
            (_describe(N_("Baseline"), base), _describe(N_("Head"), head), _tell(ends))
        ).rstrip(),
    )


def _ends(center: float | None, ratio: Interval | None) -> tuple[float, ...]:
    if center is None or ratio is None:
        return ()
    ends = tuple(center * part for part in (ratio.low, ratio.high, ratio.estimate))
    # An interval far wider than the dots would squeeze them into one.
    plain = all(math.isfinite(end) and center / 20 < end < center * 20 for end in ends)
    return ends if plain else ()


def _tell(ends: tuple[float, ...]) -> str:
    if not ends:
        return ""
    between = fmt.between(fmt.duration(ends[0]), fmt.duration(ends[1]))
    return gettext("The gate's interval for head: %(range)s.") % {"range": between}


def _drawable(values: Sequence[float]) -> list[float]:
    return [value for value in values if 1e-9 < value < 1e300]


def _describe(side: str, values: Sequence[float]) -> str:
    if not values:
        return gettext("%(side)s: no launches.") % {"side": gettext(side)}
    words = ngettext(
        "%(side)s: 1 launch, %(range)s.", "%(side)s: %(count)s launches, %(range)s.", len(values)
    )
    between = fmt.between(fmt.duration(min(values)), fmt.duration(max(values)))
    return words % {"side": gettext(side), "count": len(values), "range": between}


def ticks(low: float, high: float, parts: int) -> list[float]:
    """The round values inside an axis of about so many parts."""
    rough = (high - low) / parts
    power: float = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    return [step * index for index in range(math.ceil(low / step), math.floor(high / step) + 1)]
