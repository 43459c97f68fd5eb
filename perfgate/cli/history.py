"""The commands that keep and show the history of runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import rich_click as click

from perfgate.errors import UsageError

if TYPE_CHECKING:
    from perfgate.history import CaseRow, HistoryRun, RunRow
    from perfgate.history.store import History
    from perfgate.settings import Settings

DEFAULT = ".perfgate/history.sqlite"

_database = click.option(
    "--database",
    envvar="PERFGATE_HISTORY",
    help=f"File, or postgresql://user:password@host/name.  [default: {DEFAULT}]",
)


@click.group()
def history() -> None:
    """Keep every run ever measured, in SQLite or PostgreSQL, and look at them."""


@history.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--samples", is_flag=True, help="Keep every sample, not each launch's median alone.")
@click.option("--branch", default="", help="The branch that was measured.")
@_database
def add(results: tuple[Path, ...], samples: bool, branch: str, database: str | None) -> None:
    """Add RESULTS: results files, or exports of another history. Adding a run twice changes nothing."""
    added = known = 0
    with _open(database) as store:
        newest = next((row.created for row in store.runs(limit=1)), "")
        for path in results:
            for entry in _entries(path, samples=samples, branch=branch):
                new = store.add_entry(entry)
                added, known = added + new, known + (not new)
                click.echo(f"{_line(entry.result.run_id)}: {'added' if new else 'already there, unchanged'}")
                newest = _note_order(store, entry, newest) if new else newest
    click.echo(f"{_count(added, 'run')} added, {known} already there: {store.where}", err=True)


@history.command("list")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="Newest runs to show.")
@_database
def list_runs(limit: int, database: str | None) -> None:
    """List the newest runs, newest first."""
    with _open(database, must_exist=True) as store:
        rows = store.runs(limit)
    table = [("RUN", "CREATED", "COMMIT", "VERDICT", "CASES", "DEVICE", "TOOLCHAIN", "BRANCH")]
    table += [
        (
            row.run_id,
            row.created,
            _commit(row),
            row.verdict or "-",
            str(row.cases),
            row.device,
            row.toolchain,
            row.branch,
        )
        for row in rows
    ]
    _print_table(table)


@history.command()
@click.argument("run")
@_database
def show(run: str, database: str | None) -> None:
    """Show what the history knows of RUN: its cases with verdict, ratio and latency."""
    with _open(database, must_exist=True) as store:
        row, cases = store.run(run), store.cases(run)
    click.echo(f"run          {_line(row.run_id)}, {row.created}, perfgate {_line(row.perfgate)}")
    click.echo(f"commit       {_commit(row) or 'none'}{_on(row.branch)}")
    click.echo(f"environment  {_line(row.device)}, {_line(row.toolchain)} ({row.environment[:12]})")
    click.echo(f"verdict      {row.verdict or 'not judged'} (exit {row.exit_code})")
    click.echo(f"samples      {'all kept' if row.sampled else 'the median of each launch'}\n")
    _print_table([("CASE", "VERDICT", "RATIO", "INTERVAL", "LATENCY", "LAUNCHES"), *map(_case_line, cases)])


@history.command()
@click.argument("case")
@click.option("--metric", default="latency_ns", show_default=True, help="One of the launches' metrics.")
@click.option("--device", help="Only runs on this device, such as nvidia-h200.")
@click.option("--toolchain", help="Only runs with this toolchain, such as tensorrt-10.13.")
@click.option("--since", help="Only runs from this day on, such as 2026-01-31.")
@click.option("--branch", help="Only runs of this branch.")
@_database
def series(
    case: str,
    metric: str,
    device: str | None,
    toolchain: str | None,
    since: str | None,
    branch: str | None,
    database: str | None,
) -> None:
    """Print a metric of CASE over all its runs, oldest first: one line a run, in the metric's own unit."""
    with _open(database, must_exist=True) as store:
        points = store.series(case, metric, device=device, toolchain=toolchain, since=since, branch=branch)
    if not points:
        raise UsageError(f"no run measured {case!r}", where="series", fix="perfgate history show RUN has ids")
    table = [("CREATED", "RUN", "COMMIT", "VERDICT", metric.upper(), "LAUNCHES")]
    table += [
        (one.created, one.run_id, one.commit[:10], one.verdict, f"{one.value:.10g}", str(len(one.values)))
        for one in points
    ]
    _print_table(table)


@history.command()
@click.argument("run", required=False)
@click.option("--all", "everything", is_flag=True, help="Every run, oldest first.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="File to write.")
@_database
def export(run: str | None, everything: bool, output: Path, database: str | None) -> None:
    """Export RUN, or --all, as JSON lines that `perfgate history add` reads back to the same history."""
    from perfgate.history.rows import write_export

    if (run is None) == (not everything):
        raise UsageError("needs a RUN or --all", where="history export", fix="one of them, not both")
    with _open(database, must_exist=True) as store:
        count = write_export(output, store.entries() if run is None else [store.entry(run)])
    click.echo(f"wrote {output}: {_count(count, 'run')}", err=True)


@history.command()
@click.option("--older-than", type=click.IntRange(0), required=True, metavar="DAYS", help="Age in days.")
@click.option("--keep-samples", is_flag=True, help="Keep the samples of old runs that stay.")
@click.option("--keep", multiple=True, metavar="RUN|COMMIT", help="A run, or a commit's runs, to keep.")
@click.option("--baselines", help="Runs that a baseline in this folder names stay.  [default: baselines]")
@_database
def prune(
    older_than: int, keep_samples: bool, keep: tuple[str, ...], baselines: str | None, database: str | None
) -> None:
    """Remove runs older than DAYS. Promoted runs stay; of their samples the medians do."""
    from perfgate.history.rows import promotions

    folder = _baselines(baselines)
    now = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    with _open(database, must_exist=True) as store:
        done = store.prune_runs(
            older_than, now=now, keep=keep, promoted=promotions(folder), keep_samples=keep_samples
        )
    for run_id in done.removed:
        click.echo(f"{_line(run_id)}: removed")
    for run_id in done.kept:
        click.echo(f"{_line(run_id)}: kept{', its samples removed' if run_id in done.thinned else ''}")
    click.echo(f"{_count(len(done.removed), 'run')} removed, {len(done.kept)} older kept", err=True)


def _open(database: str | None, *, must_exist: bool = False) -> History:
    """The history that was asked for, or the project's own."""
    from perfgate.history.store import open_history

    return open_history(_settings().database(database), must_exist=must_exist)


def _settings() -> Settings:
    from perfgate.settings import load_settings

    return load_settings({}, start=Path.cwd())


def _baselines(folder: str | None) -> Path:
    """An asked-for folder that is not there would silently keep nothing."""
    settings = _settings()
    path = settings.path("baselines") if folder is None else Path(settings.root) / folder
    if folder is not None and not path.is_dir():
        raise UsageError("is not a folder", where=folder, fix="name the folder of baselines with --baselines")
    return path


def _entries(path: Path, *, samples: bool, branch: str) -> Iterator[HistoryRun]:
    from perfgate.history.rows import history_run, is_export, read_export

    if is_export(path):
        yield from read_export(path)
    else:
        from perfgate.run.outputs import read_results

        yield history_run(read_results(path), samples=samples, branch=branch)


def _note_order(store: History, entry: HistoryRun, newest: str) -> str:
    """Say where a run is older than the newest one; returns the newest time."""
    created = store.run(entry.result.run_id).created
    if created < newest:
        click.echo(
            f"  note: created {created}, before the newest run ({newest}); runs are ordered by this time"
        )
    return max(created, newest)


def _case_line(case: CaseRow) -> tuple[str, ...]:
    from perfgate.report.format import duration

    known = case.ratio is not None and case.low is not None and case.high is not None
    return (
        case.case_id,
        case.verdict or "-",
        f"{case.ratio:.4f}" if known else "-",
        f"{case.low:.4f} to {case.high:.4f}" if known else "-",
        "-" if case.latency_ns is None else duration(case.latency_ns),
        str(case.launches),
    )


def _commit(row: RunRow) -> str:
    return f"{row.commit[:10]}{'+' if row.dirty else ''}"


def _on(branch: str) -> str:
    return f" on {_line(branch)}" if branch else ""


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _line(text: str) -> str:
    from perfgate.report.format import line

    return line(text)


def _print_table(rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as they need to be; every text here may come from foreign results."""
    clean = [[_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[index]) for row in clean) for index in range(len(clean[0]))]
    for row in clean:
        text = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        click.echo(text.rstrip())
