"""The commands that carry a result somewhere: chat alerts, Prometheus metrics, an exporter."""

from __future__ import annotations

import os
import signal
import threading
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from perfgate.errors import InfrastructureError, UsageError

if TYPE_CHECKING:
    from perfgate.publish.alerts import AlertState, Event, Limits, Promotion, Waiver
    from perfgate.publish.webhooks import Destination
    from perfgate.records import RunResult

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
    """
    from perfgate.publish.alerts import Limits
    from perfgate.publish.webhooks import destinations

    found = destinations(os.environ)
    if not found and not dry_run:
        raise UsageError(
            "no destination is configured",
            where="alert",
            fix='PERFGATE_WEBHOOK_TEAM="slack https://…" in the environment; --dry-run prints the messages',
        )
    known = _read_state(state)
    told = _Telling(
        run=_read_run(results),
        now=datetime.now(timezone.utc),
        limits=Limits(**limits),
        promoted=_promotions(baselines),
        waivers=_waivers_of(baselines),
    )
    if dry_run:
        _show(told, known, [destination.name for destination in found] or ["(nobody)"])
        return
    faults = [fault for destination in found for fault in told.tell(destination, known, state)]
    for fault in faults:
        click.echo(f"perfgate: error: {fault}", err=True)
    if faults:
        raise Exit(InfrastructureError.exit_code)


class _Telling:
    """One run against what each destination knows."""

    def __init__(
        self,
        run: RunResult | None,
        now: datetime,
        limits: Limits,
        promoted: tuple[Promotion, ...],
        waivers: tuple[Waiver, ...],
    ) -> None:
        self._run, self._now, self._limits = run, now, limits
        self._promoted, self._waivers = promoted, waivers

    def due(self, name: str, known: AlertState) -> list[Event]:
        from perfgate.publish.alerts import events

        memory = known.told.get(self._scope(name), {})
        return events(
            self._run, memory, self._now, self._limits, promoted=self._promoted, waivers=self._waivers
        )

    def tell(self, destination: Destination, known: AlertState, path: Path | None) -> list[str]:
        """Send what is due and remember each message at once; returns what could not be delivered."""
        from perfgate.publish.alerts import forget, settle
        from perfgate.publish.webhooks import send

        scope, faults = self._scope(destination.name), []
        due = self.due(destination.name, known)
        memory = dict(known.told.get(scope, {}))
        if self._run is not None:
            memory = forget(
                self._run, memory, self._now, self._limits, promoted=self._promoted, waivers=self._waivers
            )
            # Results are there again: the next time that they are missing is news.
            known.told.pop(destination.name, None)
        for event in due:
            try:
                send(destination, event.alert)
            except InfrastructureError as error:
                faults.append(str(error))
                continue
            click.echo(f"{destination}: {event.alert.title}")
            memory = settle(memory, event)
            _remember(known, scope, memory, path)
        _remember(known, scope, memory, path)
        if not due:
            click.echo(f"{destination}: nothing new")
        return faults

    def _scope(self, name: str) -> str:
        # Two GPUs may run the same cases: one's recovery must not close the other's regression.
        return name if self._run is None else f"{name} {self._run.environment.device}"[:300]


def _show(told: _Telling, known: AlertState, names: list[str]) -> None:
    for name in names:
        due = told.due(name, known)
        click.echo(f"{name}: {len(due)} to send")
        for event in due:
            click.echo(f"\n[{event.alert.severity}] {event.alert.title}")
            click.echo("".join(f"  {line}\n" for line in event.alert.lines), nl=False)
            if event.alert.rest:
                click.echo(f"  … and {event.alert.rest} more")


def _read_run(path: Path) -> RunResult | None:
    from perfgate.run.outputs import read_results

    return read_results(path) if path.exists() else None


def _read_state(path: Path | None) -> AlertState:
    from perfgate.publish.alerts import STATE_SCHEMA, AlertState, check_state
    from perfgate.util.files import BASELINE_LIMIT_BYTES, read_record

    if path is None or not path.exists():
        return AlertState(schema=STATE_SCHEMA)
    return check_state(read_record(path, AlertState, limit_bytes=BASELINE_LIMIT_BYTES), str(path))


def _remember(known: AlertState, scope: str, memory: dict[Any, Any], path: Path | None) -> None:
    from perfgate.util.files import record_json, write_text

    known.told[scope] = memory
    if not memory:
        del known.told[scope]
    if path is not None:
        write_text(path, record_json(known))


def _waivers_of(folder: Path | None) -> tuple[Waiver, ...]:
    from perfgate.gate.policy.waivers import read_waivers
    from perfgate.publish.alerts import Waiver

    found = () if folder is None else read_waivers(folder)
    # Till the end of its day.
    return tuple(Waiver(case=one.case, expires=f"{one.expires}T23:59:59Z") for one in found)


def _promotions(folder: Path | None) -> tuple[Promotion, ...]:
    from perfgate.publish.alerts import promotions
    from perfgate.records import Baseline
    from perfgate.util.files import BASELINE_LIMIT_BYTES, read_record

    if folder is None:
        return ()
    if not folder.is_dir():
        raise UsageError(f"no such folder: {folder}", where="--baselines")
    files = sorted(folder.glob("*/*/*.json"))
    return promotions(read_record(path, Baseline, limit_bytes=BASELINE_LIMIT_BYTES) for path in files)


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--textfile", type=click.Path(path_type=Path), help="For the node exporter; ends in .prom.")
@click.option("--pushgateway", metavar="URL", help="Replace what a Pushgateway holds of this device.")
@click.option("--job", default="perfgate", show_default=True, help="The Pushgateway's job.")
def metrics(results: Path, textfile: Path | None, pushgateway: str | None, job: str) -> None:
    """Hand the figures of RESULTS to Prometheus, as a text file or through a Pushgateway."""
    from perfgate.publish import prometheus
    from perfgate.run.outputs import read_results

    if (textfile is None) == (pushgateway is None):
        raise UsageError("needs one of --textfile and --pushgateway", where="metrics")
    if not job:
        raise UsageError("is empty", where="--job")
    if pushgateway is not None:
        host = prometheus.check_gateway(pushgateway)
        prometheus.push(read_results(results), pushgateway, job=job)
        click.echo(f"pushed to {host}")
    elif textfile is not None:
        if textfile.suffix != ".prom":
            raise UsageError("the node exporter reads names that end in .prom alone", where="--textfile")
        prometheus.textfile(read_results(results), textfile)
        click.echo(f"wrote {textfile}")


@click.command()
@click.option("--results", required=True, type=click.Path(path_type=Path), help="Results file to watch.")
@click.option("--port", type=click.IntRange(0, 65_535), default=9877, show_default=True)
@click.option("--address", default="127.0.0.1", show_default=True, help="Address to listen on.")
def exporter(results: Path, port: int, address: str) -> None:
    """Serve the figures of a results file at /metrics until stopped; a changed file is read again."""
    from perfgate.publish.prometheus import Exporter
    from perfgate.run.outputs import read_results

    stop = threading.Event()
    # Asked to stop, an exporter has done its work: SIGTERM is no interruption and no error here.
    before = {
        number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGTERM, signal.SIGINT)
    }
    try:
        served = Exporter(results, read_results, warn=lambda text: click.echo(f"perfgate: {text}", err=True))
        served.serve(
            port, address, stop, ready=lambda real: click.echo(f"serving http://{address}:{real}/metrics")
        )
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
