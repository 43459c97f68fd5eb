"""The commands that read the history: trends in the terminal, and a static site of them."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import rich_click as click

from perfgate.errors import UsageError

if TYPE_CHECKING:
    from perfgate.history.store import History
    from perfgate.history.trend import Trend
    from perfgate.records import RunResult
    from perfgate.report.trend.view import CaseTrend

DATABASE = ".perfgate/history.sqlite"
F = TypeVar("F", bound=Callable[..., Any])


def _selection(command: F) -> F:
    for option in reversed(
        (
            click.option(
                "--database",
                envvar="PERFGATE_HISTORY",
                help=f"File, or postgresql://user:password@host/name.  [default: {DATABASE}]",
            ),
            click.option(
                "--metric", default="latency_ns", show_default=True, help="A metric of the stored runs."
            ),
            click.option("--since", metavar="DATE", help="Leave out older runs, such as 2026-01-31."),
            click.option("--branch", help="Only runs of this branch.  [default: all]"),
        )
    ):
        command = option(command)
    return command


@click.command()
@click.argument("cases", nargs=-1, metavar="[CASE]...")
@_selection
def trend(cases: tuple[str, ...], database: str | None, **selection: Any) -> None:
    """Show how cases moved from run to run: sparkline, last value, changes with their commits.

    A change that came with a new environment (a driver, a library) is told apart from a commit's.
    It is news, no verdict: the exit code is 0.
    """
    from perfgate.report.trend.view import ASCII_BLOCKS, BLOCKS, terminal

    with _open(database) as history:
        found = list(_views(history, cases, selection))
    click.echo(terminal(found, ascii_only=not _shows(BLOCKS + ASCII_BLOCKS)))


@click.command()
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--title", default="Inference performance", show_default=True, help="Heading of the site.")
@_selection
def site(folder: Path, title: str, database: str | None, **selection: Any) -> None:
    """Write a static site of all trends, for GitHub Pages or any other file server.

    It needs no script and asks no other host for anything. Files of earlier cases in the folder are left.
    """
    from perfgate.report.trend.site import render_site
    from perfgate.util.files import check_writable, write_text

    check_writable(folder)
    with _open(database) as history:
        found = list(_views(history, (), selection))
    count = 0
    for name, text in render_site(found, title=title):
        write_text(folder / name, text)
        count += 1
    click.echo(f"wrote {count} files; open {folder / 'index.html'}")


def run_trends(result: RunResult, database: str) -> dict[str, CaseTrend]:
    """The latency of a run's cases in the history, on the run's device, by case."""
    with _open(database) as history:
        stored = set(history.case_ids())
        cases = tuple(case.case.id for case in result.cases if case.case.id in stored)
        views = _views(history, cases, {}) if cases else ()
        return {one.case: one for one in views if one.device == result.environment.device}


def _open(database: str | None) -> History:
    """The history that was asked for, or the project's own."""
    from perfgate.history.store import open_history
    from perfgate.settings import load_settings

    return open_history(load_settings({}, start=Path.cwd()).database(database), must_exist=True)


def _views(history: History, cases: tuple[str, ...], selection: dict[str, Any]) -> Iterator[CaseTrend]:
    from perfgate.history.trend import read_trends

    known = set(history.case_ids())
    if unknown := [case for case in cases if case not in known]:
        near = ", ".join(sorted(known)[:10]) or "none; `perfgate history add` stores runs"
        raise UsageError(f"no run of {unknown[0]!r} is stored", where="CASE", fix=f"stored cases: {near}")
    names: dict[str, dict[str, str]] = {}
    for one in read_trends(history, cases, **selection):
        view = to_view(one, lambda digest: _key(history, digest, names))
        if view is not None:
            yield view


def _key(history: History, digest: str, names: dict[str, dict[str, str]]) -> dict[str, str]:
    if digest not in names:
        names[digest] = dict(history.environment(digest).key)
    return names[digest]


def to_view(trend: Trend, key_of: Callable[[str], dict[str, str]]) -> CaseTrend | None:
    """A trend of the history as the reports show it; nothing where no night has a value to draw.

    Indexes move along when nights without a positive finite value are left out.
    """
    from perfgate.report.trend.view import CaseTrend, Change, Event, Night

    kept = [i for i, point in enumerate(trend.points) if math.isfinite(point.value) and point.value > 0]
    if not kept:
        return None
    place = {old: new for new, old in enumerate(kept)}
    nights = tuple(
        Night(
            run=point.run_id,
            created=point.created,
            commit=point.commit,
            verdict=point.verdict,
            environment=point.environment,
            toolchain=point.toolchain,
            value=point.value,
            values=tuple(value for value in point.values if math.isfinite(value) and value > 0),
            promoted=point.promoted,
        )
        for point in (trend.points[i] for i in kept)
    )
    changes = tuple(
        Change(
            index=place[one.index],
            created=one.created,
            ratio=one.ratio,
            low=one.low,
            high=one.high,
            by_environment=one.cause == "environment",
            commits=one.commits,
        )
        for one in trend.changes
    )
    events = tuple(
        Event(
            index=place[one.index],
            created=one.created,
            what=_difference(key_of(one.before), key_of(one.after)),
        )
        for one in trend.events
        if one.index in place
    )
    return CaseTrend(trend.case, trend.device, trend.metric, nights, changes, events)


def _difference(before: dict[str, str], after: dict[str, str]) -> str:
    fields = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
    told = [f"{name} {before.get(name, '(absent)')} to {after.get(name, '(absent)')}" for name in fields[:6]]
    if len(fields) > 6:
        told.append(f"and {len(fields) - 6} more")
    return ", ".join(told) or "another key"


def _shows(text: str) -> bool:
    try:
        text.encode(sys.stdout.encoding or "ascii")
    except (UnicodeEncodeError, LookupError):
        return False
    return True
