"""Numbers of a business case as words: money, hours, direction words, the table's names."""

from __future__ import annotations

from perfgate.report import format as fmt
from perfgate.report.i18n import N_, gettext as _
from perfgate.value.business import Figures, Line

NAMES = {
    "latency_ms": N_("Average latency"),
    "p99_ms": N_("P99 latency"),
    "queries_per_s": N_("Throughput, queries a second"),
    "items_per_s": N_("Throughput, items a second"),
    "memory_gb": N_("GPU memory"),
    "capacity_per_s": N_("Requests a second within the limit, one GPU"),
    "instance_month": N_("Cost of an instance a month"),
    "instances": N_("Instances for the peak"),
    "per_month": N_("Cost a month"),
    "per_year": N_("Cost a year"),
    "per_million": N_("Cost of a million requests"),
    "deploy_hours": N_("Time to deploy"),
}
_TIMES = ("latency_ms", "p99_ms", "deploy_hours")
_COUNTS = ("instances",)
# What perfgate calls a stage in its records, and a reader reads.
STAGES = {
    "installation": N_("installation"),
    "environment": N_("environment: library, device"),
    "export": N_("export of the ONNX file"),
    "conversion": N_("conversion"),
    "calibration": N_("calibration"),
    "build": N_("build, cold"),
    "build with timing cache": N_("build with timing cache"),
    "reference": N_("reference answers (FP32, CPU)"),
    "verification": N_("verification of the answers"),
    "load": N_("load"),
    "first inference": N_("first inference"),
}
TF32 = {
    "on": N_("TF32 on"),
    "off": N_("TF32 off"),
    "convolutions only": N_("TF32 in convolutions only"),
    "matrix products only": N_("TF32 in matrix products only"),
}


def stack_name(side: Figures) -> str:
    """What running prose calls the stack that is not the original."""
    label = fmt.line(side.label)
    return "TensorRT" if label.lower().startswith("tensorrt") else label


def money(value: float, currency: str) -> str:
    """An amount with as many decimals as it needs: "USD 1,200", "USD 4.375"."""
    size = abs(value)
    if size >= 100:
        return f"{currency} {value:,.0f}"
    return f"{currency} {value:,.2f}" if size >= 10 else f"{currency} {value:.4g}"


def count(value: float) -> str:
    """A number of requests or items, thousands apart."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.4g}"


def per_second(value: float) -> str:
    """A rate of requests or items."""
    return _("%(count)s/s") % {"count": count(value)}


def hours(value: float) -> str:
    """A stretch of working time in seconds, minutes or hours."""
    seconds = value * 3600
    if seconds < 60:
        return _("%(count)s s") % {"count": f"{seconds:.3g}"}
    if seconds < 3600:
        return _("%(count)s min") % {"count": f"{seconds / 60:.3g}"}
    return _("%(count)s h") % {"count": f"{value:,.4g}"}


def months(value: float) -> str:
    """How long it takes to be paid back."""
    if value < 1:
        return _("%(days)s days") % {"days": f"{max(value * 365 / 12, 0.1):.2g}"}
    return _("%(months)s months") % {"months": f"{value:.2g}" if value < 10 else f"{value:.0f}"}


def gigabytes(value: float) -> str:
    """Device memory in decimal gigabytes."""
    return _("%(count)s GB") % {"count": f"{value:.3g}"}


def milliseconds(value: float) -> str:
    """A latency that is held in milliseconds."""
    return fmt.duration(value * 1e6)


def percents(share: float) -> str:
    """A share of one as per cent, with one decimal where it tells more: 60 %, 62.5 %."""
    text = f"{share * 100:,.0f}" if share >= 10 else f"{share * 100:,.1f}".removesuffix(".0")
    return fmt.percentage(text)


def direction(line: Line) -> str:
    """The change in words: "60 % shorter", "300 % more", or nothing where there is none to tell."""
    if line.ratio is None:
        return ""
    if line.outcome == "same":
        return _("no change")
    share = percents(abs(line.ratio - 1))
    less = line.ratio < 1
    if line.metric in _TIMES:
        return (_("%(share)s shorter") if less else _("%(share)s longer")) % {"share": share}
    if line.metric in _COUNTS:
        return (_("%(share)s fewer") if less else _("%(share)s more")) % {"share": share}
    return (_("%(share)s less") if less else _("%(share)s more")) % {"share": share}


def verdict(line: Line) -> str:
    """Better or worse, in a word and a shape."""
    return {"better": _("✓ better"), "worse": _("✗ worse"), "same": "="}.get(line.outcome, "")
