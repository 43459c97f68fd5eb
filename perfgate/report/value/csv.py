"""The table of a business case as CSV, raw numbers with their units in the metric's name."""

from __future__ import annotations

import csv
import io

from perfgate.report import format as fmt
from perfgate.value.business import BusinessCase

HEAD = ("metric", "original", "tensorrt", "ratio", "outcome", "original_source", "tensorrt_source")


def render_case(case: BusinessCase, language: str = "en") -> str:
    """A line a metric, then one a stage of deploying in seconds; money in the case's currency, which the line
    `currency` names. It is alike in every language."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(HEAD)
    sources = (case.original.source, case.tensorrt.source)
    labels = (_cell(case.original.label), _cell(case.tensorrt.label))
    writer.writerow(("stack", *labels, "", "", *sources))
    writer.writerow(("currency", case.terms.currency, case.terms.currency, "", "", "", ""))
    if case.original.tf32 or case.tensorrt.tf32:
        writer.writerow(("tf32", case.original.tf32, case.tensorrt.tf32, "", "", *sources))
    for line in case.lines:
        numbers = (_number(line.original), _number(line.tensorrt), _number(line.ratio))
        writer.writerow((line.metric, *numbers, line.outcome, *sources))
    for name in ("saving_month", "saving_year", "payback_months"):
        writer.writerow((name, "", _number(getattr(case, name)), "", "", "", ""))
    for stage in case.stages:
        source = "given" if stage.given else "timed"
        seconds = (_number(stage.original_s), _number(stage.tensorrt_s))
        told = [
            "" if taken is None and side not in stage.unknown else "unknown" if taken is None else source
            for side, taken in (("original", stage.original_s), ("tensorrt", stage.tensorrt_s))
        ]
        writer.writerow((_cell(f"stage_s {stage.name}"), *seconds, "", "", *told))
    return sink.getvalue()


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.10g}"


def _cell(text: str) -> str:
    """Foreign text that a spreadsheet does not take for a formula."""
    flat = fmt.line(text)
    return f"'{flat}" if flat[:1] in ("=", "+", "-", "@") else flat
