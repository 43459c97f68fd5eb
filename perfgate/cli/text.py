"""Text that several commands print."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import rich_click as click

from perfgate.report.format import line

if TYPE_CHECKING:
    from perfgate.gate.statistics.power import Power
    from perfgate.history import RunRow


def commit_of(row: RunRow) -> str:
    """A run's commit, short, marked where its tree was dirty."""
    return f"{row.commit[:10]}{'+' if row.dirty else ''}"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; every text here may come from foreign results."""
    clean = [[line(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in clean) for index in range(len(clean[0]))]
    for row in clean:
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(text.rstrip())


def show_power(found: Power) -> None:
    """The figures of a gate's power."""
    tolerance = found.tolerance
    least = "none up to twice as long" if found.detectable is None else f"{found.detectable:.2%}"
    launches = found.suggested_launches
    click.echo(f"  spread          {found.launch_cv:.2%} between launches, {found.run_cv:.2%} between runs")
    click.echo(
        f"  false alarms    {found.false_alarm_rate:.4%} of simulated A/A gates "
        f"(95 % bound {found.false_alarm_upper:.4%}), {found.inconclusive_rate:.2%} undecided"
    )
    click.echo(f"  +{tolerance.catch:.1%} caught in {found.power_at_catch:.1%}; 95 % power from {least} on")
    click.echo(
        f"  launches a side {found.launches_unchanged:.0f} in the median where nothing changed, "
        f"{found.launches_at_catch:.0f} at +{tolerance.catch:.1%}"
    )
    budget = "no budget up to 96 launches would do" if launches is None else f"--confirm-budget {launches}"
    catch = "" if found.suggested_catch is None else f"; as it is, --catch {found.suggested_catch:.3g} holds"
    click.echo(f"  suggested       {budget} for 95 % power at +{tolerance.catch:.1%}{catch}")
