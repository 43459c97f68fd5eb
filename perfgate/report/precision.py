"""The precisions of a model as a table: one set of cells, printed to a terminal and as Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Console
from rich.table import Table
from rich.text import Text

from perfgate.records import Accuracy, PrecisionRow, PrecisionTable
from perfgate.report.format import NOTHING, duration, line, size
from perfgate.report.run.markdown import _text

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
    speed = f"{base / row.latency_ns:.2f} ×" if base and row.latency_ns else NOTHING
    errors = [one.max_abs_error for one in accuracy.outputs if one.max_abs_error is not None]
    task = accuracy.task
    return (
        row.precision,
        duration(row.latency_ns) if row.latency_ns else NOTHING,
        speed,
        size(row.engine_bytes) if row.engine_bytes else NOTHING,
        size(row.memory_bytes) if row.memory_bytes else NOTHING,
        _sqnr(accuracy),
        f"{max(errors):.3g}" if errors else NOTHING,
        f"{task.head:.4g}" if task else NOTHING,
        _answers(row),
    )


def _sqnr(accuracy: Accuracy) -> str:
    if not accuracy.outputs:
        return NOTHING
    known = [one.sqnr_db for one in accuracy.outputs if one.sqnr_db is not None]
    return f"{min(known):.1f} dB" if known else "equal"


def _answers(row: PrecisionRow) -> str:
    if row.latency_ns is None:
        return row.verdict.value.lower()
    if row.accuracy is None or not row.accuracy.samples:
        return "not checked" if row.accuracy is None or not row.accuracy.failures else "wrong"
    return "wrong" if row.accuracy.failures else "right"


def remarks(table: PrecisionTable) -> Iterator[str]:
    """What must be said beside the table: failures, reasons, and notes of conversion, by precision."""
    for row in table.rows:
        reasons = [row.reason] if row.latency_ns is None else []
        checked = (*row.accuracy.failures, *row.accuracy.notes) if row.accuracy else ()
        yield from (f"{row.precision}: {one}" for one in (*reasons, *checked))


def worst(table: PrecisionTable) -> list[tuple[str, list[str]]]:
    """The layers that lose most, by precision."""
    return [
        (row.precision, [f"{layer.sqnr_db:6.1f} dB  {layer.node} ({layer.operator})" for layer in row.layers])
        for row in table.rows
        if row.layers
    ]


def print_table(table: PrecisionTable, console: Console) -> None:
    """The table on a terminal."""
    grid = Table(box=None, pad_edge=False)
    for place, name in enumerate(HEADER):
        grid.add_column(name, justify="right" if 0 < place < len(HEADER) - 1 else "left")
    for row in cells(table):
        grid.add_row(*(Text(cell) for cell in row))
    console.print(Text(title(table)))
    console.print(grid)
    for remark in remarks(table):
        console.print(Text(f"– {remark}"))
    for precision, layers in worst(table):
        console.print(Text(f"\n{precision}: the layers that lose most"))
        for layer in layers:
            console.print(Text(f"  {layer}"))


def render(table: PrecisionTable) -> str:
    """Markdown, with whatever comes from a model escaped."""
    lines = [f"### {_escaped(title(table))}", ""]
    lines += [_line(HEADER), f"|{'---|' * len(HEADER)}", *map(_line, cells(table)), ""]
    lines += [f"- {_escaped(remark)}" for remark in remarks(table)]
    for precision, layers in worst(table):
        lines += ["", f"{precision}: the layers that lose most", ""]
        lines += [f"1. {_escaped(layer)}" for layer in layers]
    return "\n".join(lines).rstrip() + "\n"


def _line(row: tuple[str, ...]) -> str:
    return f"| {' | '.join(map(_escaped, row))} |"


def _escaped(text: str) -> str:
    return _text(line(text, 2_000))
