"""A change in words, the same wherever it is said: in a verdict's reason and in every report."""

from __future__ import annotations

import math

NOTHING = "—"


def change(ratio: float) -> str:
    """A latency ratio head / base in words: 1.123 is "12.3 % slower", 3.2 "takes 3.20 × as long"."""
    if not math.isfinite(ratio):
        return NOTHING
    if ratio >= 2:
        return f"takes {ratio:.2f} × as long"
    difference = (ratio - 1) * 100
    text = f"{abs(difference):.{decimals(difference)}f}"
    if float(text) == 0:
        return "no change"
    return f"{text} % {'slower' if difference > 0 else 'faster'}"


def decimals(difference: float) -> int:
    # Half a per cent is what is being decided on: one decimal would blur it.
    return 1 if abs(difference) >= 0.995 else 2
