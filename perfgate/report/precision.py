"""The precisions of a model as a table: one set of cells, rendered for a terminal and as Markdown."""

from __future__ import annotations

from perfgate.records import Accuracy, PrecisionRow, PrecisionTable
from perfgate.report.format import duration, size

HEADER = ("precision", "latency", "speed", "engine", "memory", "SQNR", "max error", "task", "answers")


def title(table: PrecisionTable) -> str:
    """What was measured, at which shape, and on what."""
    shapes = dict.fromkeys("/".join(row.case.split("/")[2:]) for row in table.rows)
    said = f" {', '.join(shape for shape in shapes if shape)}".rstrip()
    return f"{table.model}{said} with {table.backend} on {table.device}"


def cells(table: PrecisionTable) -> list[tuple[str, ...]]:
    """One line of text cells a row; speed is against FP32's latency."""
    base = next((row.latency_ns for row in table.rows if row.precision == "fp32"), None)
    return [_cells(row, base) for row in table.rows]


def _cells(row: PrecisionRow, base: float | None) -> tuple[str, ...]:
    accuracy = row.accuracy or Accuracy(reference="")
    speed = f"{base / row.latency_ns:.2f} ×" if base and row.latency_ns else "—"
    errors = [one.max_abs_error for one in accuracy.outputs if one.max_abs_error is not None]
    task = accuracy.task
    return (
        row.precision,
        duration(row.latency_ns) if row.latency_ns else "—",
        speed,
        size(row.engine_bytes) if row.engine_bytes else "—",
        size(row.memory_bytes) if row.memory_bytes else "—",
        _sqnr(accuracy),
        f"{max(errors):.3g}" if errors else "—",
        f"{task.head:.4g}" if task else "—",
        _answers(row),
    )


def _sqnr(accuracy: Accuracy) -> str:
    if not accuracy.outputs:
        return "—"
    known = [one.sqnr_db for one in accuracy.outputs if one.sqnr_db is not None]
    return f"{min(known):.1f} dB" if known else "equal"


def _answers(row: PrecisionRow) -> str:
    if row.latency_ns is None:
        return row.verdict.value.lower()
    if row.accuracy is None or not row.accuracy.samples:
        return "not checked" if row.accuracy is None or not row.accuracy.failures else "wrong"
    return "wrong" if row.accuracy.failures else "right"


def remarks(table: PrecisionTable) -> list[str]:
    """What must be said beside the table: failures, reasons, and notes of conversion, by precision."""
    said = []
    for row in table.rows:
        if row.latency_ns is None:
            said.append(f"{row.precision}: {row.reason}")
        if row.accuracy is not None:
            said += [f"{row.precision}: {one}" for one in (*row.accuracy.failures, *row.accuracy.notes)]
    return said


def worst(table: PrecisionTable) -> list[tuple[str, list[str]]]:
    """The layers that lose most, by precision."""
    return [
        (row.precision, [f"{layer.sqnr_db:6.1f} dB  {layer.node} ({layer.operator})" for layer in row.layers])
        for row in table.rows
        if row.layers
    ]
