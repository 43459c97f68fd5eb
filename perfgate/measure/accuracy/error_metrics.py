"""How far two arrays of answers are apart. Pure but for numpy; sums are taken in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from perfgate.records import Agreement, OutputAccuracy

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

# An output with this many columns or more may be a classifier's.
_CLASSES = 10
# A relative error is taken against no less than this share of the largest reference value: next to zero any
# error is infinite and means nothing.
_RELATIVE_FLOOR = 1e-3


def compare_output(name: str, pairs: Iterable[tuple[Array, Array]]) -> OutputAccuracy:
    """One output over all batches, each a pair of reference and head.

    SQNR is 10 log10(sum r² / sum (r - h)²), cosine sum rh / sqrt(sum r² sum h²), both over every value. Where
    head holds NaN or infinity they are counted, and nothing else is computed.
    """
    import numpy as np

    sums = _Sums()
    for reference, head in pairs:
        if reference.shape != head.shape:
            raise ValueError(
                f"output {name!r} is {list(head.shape)} and the reference's {list(reference.shape)}"
            )
        sums.ranked = sums.ranked and reference.ndim == 2 and reference.shape[1] >= _CLASSES
        r, h = reference.astype(np.float64), head.astype(np.float64)
        finite = np.isfinite(h)
        # Where the reference itself is not finite, head may be the same.
        wrong = ~finite & ~((r == h) | (np.isnan(r) & np.isnan(h)))
        sums.nonfinite += int(wrong.sum())
        kept = finite & np.isfinite(r)
        sums.add(r[kept], h[kept])
        if sums.ranked and finite.all():
            sums.rank(r, h)
    return sums.result(name)


class _Sums:
    """Running sums over batches."""

    def __init__(self) -> None:
        self.reference = self.head = self.product = self.error = 0.0
        self.largest_error = self.largest_reference = 0.0
        self.relative = 0.0
        self.nonfinite = self.rows = self.top1 = self.top5 = 0
        self.ranked = True

    def add(self, r: Array, h: Array) -> None:
        import numpy as np

        if not r.size:
            return
        error = np.abs(r - h)
        self.reference += float(np.square(r).sum())
        self.head += float(np.square(h).sum())
        self.product += float((r * h).sum())
        self.error += float(np.square(error).sum())
        self.largest_error = max(self.largest_error, float(error.max()))
        largest = float(np.abs(r).max())
        self.largest_reference = max(self.largest_reference, largest)
        if largest:
            floor = np.maximum(np.abs(r), _RELATIVE_FLOOR * largest)
            self.relative = max(self.relative, float((error / floor).max()))

    def rank(self, r: Array, h: Array) -> None:
        """top-1: the same best class. top-5: the reference's best is among head's five best."""
        import numpy as np

        best = r.argmax(axis=1)
        self.rows += len(r)
        self.top1 += int((h.argmax(axis=1) == best).sum())
        five = np.argpartition(h, -5, axis=1)[:, -5:]
        self.top5 += int((five == best[:, None]).any(axis=1).sum())

    def result(self, name: str) -> OutputAccuracy:
        if self.nonfinite:
            return OutputAccuracy(output=name, nonfinite=self.nonfinite)
        ranked = self.ranked and self.rows
        norm = math.sqrt(self.reference * self.head)
        return OutputAccuracy(
            output=name,
            max_abs_error=self.largest_error,
            max_rel_error=self.relative,
            cosine=self.product / norm if norm else None,
            sqnr_db=sqnr_db(self.reference, self.error),
            top1=Agreement(right=self.top1, total=self.rows) if ranked else None,
            top5=Agreement(right=self.top5, total=self.rows) if ranked else None,
        )


def sqnr_db(signal: float, noise: float) -> float | None:
    """10 log10(signal / noise) in decibels; None where nothing differs, -400 where there is only noise."""
    if not noise:
        return None
    return max(-400.0, 10 * math.log10(signal / noise)) if signal else -400.0
