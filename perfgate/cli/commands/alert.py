"""`perfgate alert`: tell the chat services what changed."""

from __future__ import annotations

import os
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from perfgate.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from perfgate.publish.alerts import AlertState, Dated
    from perfgate.publish.notify import Notifier

_MAX_AGE_HOURS = 24.0 * 366


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--state", type=click.Path(path_type=Path), help="What was told before; kept between runs.")
@click.option(
    "--max-age-hours",
    type=click.FloatRange(0, _MAX_AGE_HOURS, min_open=True),
    default=26.0,
    show_default=True,
    help="An older newest run is a missed night.",
)
@click.option("--baselines", type=click.Path(path_type=Path), help="Folder whose old baselines are told.")
@click.option(
    "--max-baseline-days",
    type=click.FloatRange(0, 36_600, min_open=True),
    default=90.0,
    show_default=True,
    help="A baseline promoted longer ago is stale.",
)
@click.option("--dry-run", is_flag=True, help="Print the messages; send nothing, remember nothing.")
def alert(results: Path, state: Path | None, baselines: Path | None, dry_run: bool, **limits: Any) -> None:
    """Tell the chat services what changed: regressions, recoveries, missed nights, stale baselines.

    Destinations come from the environment alone: PERFGATE_WEBHOOK_<NAME>="KIND https://…", KIND one of
    slack, teams, feishu, lark, dingtalk, wecom, json; a signing secret in PERFGATE_WEBHOOK_<NAME>_SECRET.
    With --state an alert is repeated only when it changes. A missing RESULTS file is a missed night.

    Example: perfgate alert perfgate-out/results.json --dry-run
    """
    from perfgate.publish.alerts import Limits
    from perfgate.publish.notify import Notifier, read_state
    from perfgate.publish.webhooks import destinations
    from perfgate.run.outputs import read_results

    found = destinations(os.environ)
    if not found and not dry_run:
        raise UsageError(
            "no destination is configured",
            where="alert",
            fix='PERFGATE_WEBHOOK_TEAM="slack https://…" in the environment; --dry-run prints the messages',
        )
    known = read_state(state)
    promoted, waivers = _dated(baselines)
    notifier = Notifier(
        run=read_results(results) if results.exists() else None,
        now=datetime.now(timezone.utc),
        limits=Limits(**limits),
        promoted=promoted,
        waivers=waivers,
        say=click.echo,
    )
    if dry_run:
        _show(notifier, known, [destination.name for destination in found] or ["(nobody)"])
        return
    faults = [fault for destination in found for fault in notifier.notify(destination, known, state)]
    for fault in faults:
        click.echo(f"perfgate: error: {fault}", err=True)
    if faults:
        raise Exit(InfrastructureError.exit_code)


def _show(notifier: Notifier, known: AlertState, names: list[str]) -> None:
    for name in names:
        due = notifier.due(name, known)
        click.echo(f"{name}: {len(due)} to send")
        for event in due:
            click.echo(f"\n[{event.alert.severity}] {event.alert.title}")
            click.echo("".join(f"  {line}\n" for line in event.alert.lines), nl=False)
            if event.alert.rest:
                click.echo(f"  … and {event.alert.rest} more")


def _dated(folder: Path | None) -> tuple[tuple[Dated, ...], tuple[Dated, ...]]:
    """When each case of some baselines was promoted, and till when it is waived."""
    from perfgate.gate.policy.waivers import read_waivers
    from perfgate.publish.alerts import Dated
    from perfgate.records import Baseline
    from perfgate.util.files import BASELINE_LIMIT_BYTES, read_record

    if folder is None:
        return (), ()
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", where="--baselines")
    files = sorted(folder.glob("*/*/*.json"))
    baselines = [read_record(path, Baseline, limit_bytes=BASELINE_LIMIT_BYTES) for path in files]
    promoted = (
        Dated(case=name, day=one.promoted) for stored in baselines for name, one in stored.cases.items()
    )
    # Till the end of its day.
    waived = (Dated(case=one.case, day=f"{one.expires}T23:59:59Z") for one in read_waivers(folder))
    return tuple(promoted), tuple(waived)
