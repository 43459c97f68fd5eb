"""Is the calibration data fit to calibrate with? Warnings in words that a user understands."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from perfgate.records import Record

if TYPE_CHECKING:
    import numpy as np

FEW = 32
LOOKED_AT = 32
# A range so much wider or narrower, or a mean so many deviations away, is that of another input.
RANGE_RATIO = 2.0
MEAN_SHIFT = 1.0


class Spread(Record):
    """One input over a data set: count, mean, standard deviation and largest magnitude of its values."""

    count: int = 0
    mean: float = 0.0
    std: float = 0.0
    largest: float = 0.0


def spreads(batches: Iterable[Mapping[str, np.ndarray[Any, Any]]]) -> dict[str, Spread]:
    """The spread of every floating-point input, summed batch by batch over the first ones."""
    import numpy as np

    sums: dict[str, list[float]] = {}
    for batch in itertools.islice(batches, LOOKED_AT):
        for name, array in batch.items():
            if array.dtype.kind != "f" or not array.size:
                continue
            values = array.astype(np.float64)
            total = sums.setdefault(name, [0, 0.0, 0.0, 0.0])
            total[0] += values.size
            total[1] += float(values.sum())
            total[2] += float(np.square(values).sum())
            total[3] = max(total[3], float(np.abs(values).max()))
    return {name: _spread(*total) for name, total in sums.items()}


def _spread(count: float, total: float, squares: float, largest: float) -> Spread:
    mean = total / count
    variance = max(0.0, squares / count - mean * mean)
    # What is left of two large sums is rounding, not spread.
    if variance < 1e-12 * max(squares / count, 1e-300):
        variance = 0.0
    return Spread(count=int(count), mean=mean, std=math.sqrt(variance), largest=largest)


def warnings(
    samples: int, calibration: Mapping[str, Spread], evaluation: Mapping[str, Spread]
) -> tuple[str, ...]:
    """What is wrong with calibration data, held against the data that answers are judged on."""
    said = []
    if samples < FEW:
        said.append(f"calibration: only {samples} samples; INT8's ranges need {FEW} real inputs or more")
    for name, have in calibration.items():
        if not have.std:
            said.append(
                f"calibration: input {name!r} is {have.mean:g} everywhere, so its ranges mean nothing"
            )
            continue
        other = evaluation.get(name)
        if other is None or not other.std:
            continue
        ratio = have.std / other.std
        if not 1 / RANGE_RATIO <= ratio <= RANGE_RATIO:
            word = "wider" if ratio > 1 else "narrower"
            factor = max(ratio, 1 / ratio)
            said.append(
                f"calibration: input {name!r} spreads {factor:.1f} times {word} than the evaluation data: "
                "is it scaled or normalised in another way?"
            )
        elif abs(have.mean - other.mean) > MEAN_SHIFT * other.std:
            said.append(
                f"calibration: input {name!r} has mean {have.mean:.3g}, the evaluation data "
                f"{other.mean:.3g}: "
                "is it normalised in another way?"
            )
    return tuple(said)
