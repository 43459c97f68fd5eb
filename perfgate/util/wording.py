"""Changes and counts in words, the same wherever they are said: in a verdict's reason and in every report."""

from __future__ import annotations

import math
from collections.abc import Callable

NOTHING = "—"


def change(ratio: float) -> str:
    """A latency ratio head / base in words: 1.123 is "12.3 % slower", 3.2 "takes 3.20 × as long"."""
    return in_words(ratio, "takes %(times)s × as long", "%(share)s slower", "%(share)s faster")


def in_words(
    ratio: float,
    times: str,
    up: str,
    down: str,
    *,
    same: str = "no change",
    percentage: Callable[[str], str] = "{} %".format,
) -> str:
    """A ratio by the sentence that fits it: twofold and beyond, up, down, or no change."""
    if not math.isfinite(ratio):
        return NOTHING
    if ratio >= 2:
        return times % {"times": f"{ratio:.2f}"}
    difference = (ratio - 1) * 100
    text = f"{abs(difference):.{decimals(difference)}f}"
    if float(text) == 0:
        return same
    return (up if difference > 0 else down) % {"share": percentage(text)}


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def decimals(difference: float) -> int:
    # Half a per cent is what is being decided on: one decimal would blur it.
    return 1 if abs(difference) >= 0.995 else 2
