"""Numbers and foreign text made fit to be read: the only place where units are converted."""

from __future__ import annotations

import math
import re

from perfgate.records import Commit, Interval, Protocol
from perfgate.report.i18n import gettext as _
from perfgate.util.wording import NOTHING as NOTHING, decimals, in_words

TIME_UNITS = (("ns", 1.0), ("µs", 1e3), ("ms", 1e6), ("s", 1e9))
_SIZE_UNITS = (("B", 1.0), ("KiB", 1024.0), ("MiB", 1024.0**2))

# Escape sequences first, whole, so that "\x1b[31m" leaves no "[31m" behind.
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]|\x9b[0-?]*[ -/]*[@-~]|\x1b\][^\x07\x1b\n]*(?:\x07|\x1b\\)")
_LINE_ENDS = re.compile(r"\r\n|[\r\x85\u2028\u2029]")
# Control characters, and the invisible ones that reorder a line so that it reads as another.
_CONTROL = re.compile(
    r"\x1b[@-_]?|[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]"
)
_COMMAND = re.compile(r"(?P<advice>(?:[^`]*?: )?)(?P<code>(?:perfgate|pytest|python) .*)")
_SURROGATE = re.compile(r"[\ud800-\udfff\ufffe\uffff]")


def block(text: str) -> str:
    """Foreign text without escape sequences and control characters; line breaks stay."""
    text = _LINE_ENDS.sub("\n", _ANSI.sub("", text))
    return _SURROGATE.sub("\ufffd", _CONTROL.sub("", text))


def line(text: str, limit: int = 300) -> str:
    """Foreign text as a single line of at most `limit` characters."""
    # Cut before cleaning as well, so that a text of megabytes costs no more than a short one.
    flat = " ".join(block(text[: limit * 8]).split())
    return flat if len(flat) <= limit and len(text) <= limit * 8 else flat[: limit - 1] + "…"


def tail(text: str, limit: int = 4_000) -> str:
    """The end of a foreign text, where the error is; says when something was left out."""
    kept = block(text[-8 * limit :]).strip("\n")
    if len(kept) <= limit and len(text) <= 8 * limit:
        return kept
    cut = _("earlier lines are in the JSON")
    return f"… ({cut})\n{kept[-limit:]}"


def _significant(value: float, unit: str) -> str:
    """Four significant digits, never an exponent, no decimals that a whole number would only fake."""
    magnitude = int(f"{value:.3e}".partition("e")[2])  # of the rounded value: 0.99996 has that of 1
    decimals = max(0, 3 - magnitude)
    text = f"{value:.{decimals}f}"
    if unit in ("ns", "B") and "." in text:
        text = text.rstrip("0").rstrip(".")
    return f"{text} {unit}"


def _scaled(value: float | None, units: tuple[tuple[str, float], ...], limit: float) -> str:
    if value is None or not math.isfinite(value):
        return NOTHING
    unit, scale = next((one for one in units if abs(value) / one[1] < limit), units[-1])
    return _significant(value / scale, unit)


def duration(nanoseconds: float | None) -> str:
    """A duration with four significant digits in ns, µs, ms or s; a dash for none."""
    return _scaled(nanoseconds, TIME_UNITS, 999.95)  # what rounds to 1000 is one of the next unit


def size(count: float | None) -> str:
    """A size with four significant digits in MiB (KiB or B where it is smaller than one)."""
    return _scaled(count, _SIZE_UNITS, 1024.0)


def rate(per_second: float) -> str:
    """A throughput in queries a second."""
    return _significant(per_second, "/s") if math.isfinite(per_second) else NOTHING


def quantity(value: float | None, metric: str) -> str:
    """A value in the unit that its metric's name tells; a dash for none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    if metric.endswith("_ns"):
        return duration(value)
    if metric.endswith("_ms"):
        return duration(value * 1e6)
    if metric.endswith("_bytes"):
        return size(value)
    return rate(value) if metric.endswith("_qps") else f"{value:.6g}"


def percentage(text: str) -> str:
    """A number that is one of a hundred, with its sign set as the language sets it."""
    return _("%(number)s %%") % {"number": text}


def change(ratio: float) -> str:
    """A latency ratio head / base in words, as `perfgate.util.wording.change` has them in English."""
    return _in_words(ratio, _("takes %(times)s × as long"), _("%(share)s slower"), _("%(share)s faster"))


def more(ratio: float) -> str:
    """A ratio head / base of a metric that is no latency: "2.0 % more"."""
    return _in_words(ratio, _("%(times)s × as much"), _("%(share)s more"), _("%(share)s less"))


def _in_words(ratio: float, times: str, up: str, down: str) -> str:
    return in_words(ratio, times, up, down, same=_("no change"), percentage=percentage)


def percent(ratio: float) -> str:
    """A ratio as a signed difference: 1.123 is "+12.3 %"."""
    if not math.isfinite(ratio):
        return NOTHING
    difference = (ratio - 1) * 100
    text = f"{abs(difference):.{decimals(difference)}f}"
    sign = "" if float(text) == 0 else "+" if difference > 0 else "−"
    return percentage(f"{sign}{text}")


def share(value: float) -> str:
    """A share in per cent, without a sign: 0.005 is "0.5 %"."""
    return percentage(f"{value * 100:.3g}")


def bounds(ratio: Interval) -> str:
    """Both ends of a change: "+10.1 % to +14.5 %"."""
    return between(percent(ratio.low), percent(ratio.high))


def between(low: str, high: str) -> str:
    """Two ends of a range, in words."""
    return _("%(low)s to %(high)s") % {"low": low, "high": high}


def interval(ratio: Interval) -> str:
    """The interval of a change: "95 % interval +10.1 % to +14.5 %"."""
    confidence = percentage(f"{ratio.confidence * 100:.6g}")
    return _("%(confidence)s interval %(bounds)s") % {"confidence": confidence, "bounds": bounds(ratio)}


def commit(value: Commit) -> str:
    """A commit by its short id, whether the tree was clean, and its subject."""
    if not value.sha:
        return _("not in a git repository")
    parts = [value.sha[:12], _("with uncommitted changes") if value.dirty else "", line(value.subject, 120)]
    return " · ".join(part for part in parts if part)


def protocol(value: Protocol) -> str:
    """The measuring protocol in a sentence."""
    return _(
        "%(launches)s launches a case, each a fresh process; warm-up %(warmup)s, "
        "then at least %(duration)s and %(samples)s samples"
    ) % {
        "launches": value.launches,
        "warmup": duration(value.warmup_ns),
        "duration": duration(value.duration_ns),
        "samples": value.min_samples,
    }


def spans(text: str) -> tuple[tuple[bool, str], ...]:
    """A next step as (is code, text) parts: "advice: perfgate …", or text with `backticks`."""
    if command := _COMMAND.fullmatch(text):
        parts = [command["advice"], command["code"].replace("`", "")]
    else:
        parts = text.split("`")
        if len(parts) % 2 == 0:  # an odd number of backticks pairs with nothing
            parts = [text]
    return tuple((index % 2 == 1, part) for index, part in enumerate(parts) if part)
