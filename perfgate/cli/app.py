"""The command line: a thin front door. It parses, calls the rooms, prints, and turns errors into advice.

Exit codes: 0 all well, 1 a case is red, 2 usage or configuration, 3 environment or infrastructure.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import rich_click as click
from click.exceptions import Exit

from perfgate._version import __version__
from perfgate.cli.engines import build, export, throughput
from perfgate.cli.explain import bisect, bundle, explain
from perfgate.cli.gate import aa, anchor, paired_with, power
from perfgate.cli.github import github, merge
from perfgate.cli.history import history
from perfgate.cli.image import image
from perfgate.cli.precision import precision
from perfgate.cli.publish import alert, exporter, metrics
from perfgate.cli.trend import run_trends, site, trend
from perfgate.cli.value import value
from perfgate.errors import InfrastructureError, PerfgateError, UsageError
from perfgate.report.i18n import LANGUAGES
from perfgate.util.files import FULL_DISK, check_writable, write_error

if TYPE_CHECKING:
    from perfgate.records import RunResult
    from perfgate.settings import Settings

F = TypeVar("F", bound=Callable[..., Any])
_FINISHING = b"\nperfgate: finishing; press Ctrl-C again to stop at once\n"
FORMATS = ("terminal", "markdown", "html", "json", "pytest-benchmark")


def main() -> NoReturn:
    """The console script: `PerfgateError` becomes a short message and its exit code."""
    signal.signal(signal.SIGTERM, _interrupt)
    # It may be ignored, as a shell has it for what runs in the background.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
    try:
        # Not standalone, click returns the code of an `Exit` and raises the rest.
        code = cli(standalone_mode=False) or 0
    except click.ClickException as error:
        error.show()
        code = 2
    except (KeyboardInterrupt, click.Abort):
        click.echo("perfgate: interrupted", err=True)
        code = 3
    except PerfgateError as error:
        code = _report(error)
    except OSError as error:
        if error.errno not in FULL_DISK:
            raise
        code = _report(write_error(Path(error.filename or "the temporary folder"), error))
    sys.exit(code)


def _report(error: PerfgateError) -> int:
    click.echo(f"perfgate: error: {error}", err=True)
    return error.exit_code


def _interrupt(number: int, frame: object) -> NoReturn:
    # SIGTERM, as a cancelled CI job sends it, is a Ctrl-C: children are killed, what was measured is kept.
    if number == signal.SIGINT:
        signal.signal(signal.SIGINT, signal.default_int_handler)  # the second one says nothing
        # Not by `print`: its buffer may be in the middle of another line when the signal comes.
        with contextlib.suppress(OSError):
            os.write(2, _FINISHING)
    raise KeyboardInterrupt


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="perfgate")
def cli() -> None:
    """Performance-regression gate for neural networks on TensorRT.

    Start with `perfgate doctor`, then `perfgate run`: it builds and measures every case of models/*.toml,
    compares with baselines/, and writes perfgate-out/results.json and report.html.

    Exit codes: 0 all well, 1 a case is red, 2 usage or configuration, 3 environment or infrastructure
    (CI may retry 3, never 1).
    """


def _settings_options(command: F) -> F:
    for option in reversed(
        (
            click.option("--models", help="Folder of model specs.  [default: models]"),
            click.option("--baselines", help="Folder of baselines.  [default: baselines]"),
            click.option("--out", help="Folder for results and report.  [default: perfgate-out]"),
            click.option("--backend", help="auto, onnxruntime, …  [default: auto]"),
            click.option("--device", help="auto, cpu, or a GPU's index or UUID.  [default: auto]"),
        )
    ):
        command = option(command)
    return command


_language = click.option(
    "--lang", "language", type=click.Choice(LANGUAGES), help="Language of the report.  [default: en]"
)


@cli.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@click.option("-k", "keyword", default="", help="Only cases whose id contains this text.")
@click.option("--engine", type=click.Path(path_type=Path), help="Gate this prebuilt engine file.")
@click.option("--mode", help="Measure in this mode, such as graph+transfers or enqueue+spin.")
@click.option("--launches", type=int, help="Launches a case.  [default: 5]")
@click.option("--duration-ms", type=int, help="Sampling time of a launch.  [default: 1000]")
@click.option("--remeasure", is_flag=True, default=None, help="Measure unchanged cases all the same.")
@click.option("--all", "all_cases", is_flag=True, default=None, help="Also cases that the spec skips here.")
@click.option("--require-baseline", is_flag=True, default=None, help="A case without a baseline fails.")
@click.option("--lock-clocks", "lock_clocks_mhz", type=int, help="Hold the GPU's clock at so many MHz.")
@click.option("--ignore", type=float, help="Slowdown to ignore, as a share.")
@click.option("--catch", type=float, help="Slowdown to catch, as a share.")
@click.option("--paired", metavar="REV", help="Build and launch REV too, or `.`, and compare with that.")
@click.option("--base-python", metavar="P", help="With --paired: the interpreter of base.")
@click.option("--base-image", metavar="I", help="With --paired: the container image of base.")
@click.option(
    "--anchor", "release", metavar="TAG", help="Hold against this release: its baselines and engines."
)
@click.option("--policy-from", metavar="REV", help="Judge by this revision's policy; `base`: by base's.")
@click.option("--base", metavar="REV", help="What the change is held against; `baseline`: each case's own.")
@click.option(
    "--confirm-budget", metavar="N|Ns", help="Launches a side, or seconds, a suspect.  [default: 32]"
)
@click.option("--leg", help="This runner's name in a matrix; stated in the results for `perfgate merge`.")
@click.option("--shard", metavar="I/N", help="Measure share I of N of the cases, stated in the results.")
@_language
@_settings_options
def run(
    paths: tuple[Path, ...], keyword: str, engine: Path | None, release: str | None, **flags: Any
) -> None:
    """Build, measure and gate the models (all of models/ where no PATHS are given)."""
    from msgspec.structs import replace

    from perfgate.gate.policy.active import ActivePolicy
    from perfgate.gate.verdict.summary import of_share
    from perfgate.run.outputs import write_outputs
    from perfgate.run.pipeline import Pipeline
    from perfgate.run.shards import read_scope, share
    from perfgate.util.progress import make_progress

    other = paired_with(flags)
    leg, shard = flags.pop("leg"), flags.pop("shard")
    settings = _load(flags)
    progress = make_progress()
    with progress:
        check_writable(settings.path("out"))
        authority = ActivePolicy(settings, flags)
        if release:
            authority.compare_to_release(release)
        pipeline = Pipeline(settings, progress, authority)
        plan = pipeline.plan(paths or [settings.path("models")])
        selected = [(spec, case) for spec, case in plan if keyword in case.id]
        folder = settings.path("models").resolve()
        whole = not paths or folder in [path.resolve() for path in paths]
        ghosts = pipeline.missing(
            (case for _, case in plan), models=None if whole else [spec.name for spec, _ in plan]
        )
        missing = [ghost for ghost in ghosts if keyword in ghost.case.id]
        if keyword and not selected and not missing:
            raise UsageError(
                f"selects no case: {keyword!r}", where="-k", fix="perfgate run without -k lists all"
            )
        if engine is not None and not engine.is_file():
            raise UsageError(f"no such file: {engine}", where="--engine", fix="name an engine file")
        plan_ids = [*(case.id for _, case in selected), *(ghost.case.id for ghost in missing)]
        scope = read_scope(leg, shard, plan_ids, device=pipeline.environment.device)
        selected = share(selected, scope, lambda pair: pair[1].id)
        missing = share(missing, scope, lambda ghost: ghost.case.id)
        pipeline.preparation.check_missing(missing, plan, [case for _, case in selected])
        if other is None:
            result = pipeline.run(selected, missing=missing, engine=engine)
        else:
            from perfgate.run.analysis.paired import run_paired

            result = run_paired(pipeline, selected, other)
        summary = of_share(result.summary, scope) if result.summary else None
        result = replace(result, scope=scope, summary=summary)
    written = write_outputs(result, settings.path("out"), settings.language)
    _show(result, settings.language)
    click.echo("\n".join(f"wrote {path}" for path in written), err=True)
    _leave(result)


@cli.command()
@click.argument("base", type=click.Path(path_type=Path))
@click.argument("head", type=click.Path(path_type=Path))
def compare(base: Path, head: Path) -> None:
    """Judge the results file HEAD against the results file BASE; measures nothing."""
    from perfgate.gate.verdict.compare_results import compare_results
    from perfgate.run.outputs import read_results

    result = compare_results(read_results(base), read_results(head), results=str(head))
    _show(result, _load({}).language)
    _leave(result)


@cli.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reason", required=True, help="Why these numbers are right; kept in the baseline.")
@click.option("-k", "keyword", default="", help="Only cases whose id contains this text.")
@click.option("--accept", multiple=True, metavar="CASE", help="A regression or removal that is meant.")
@click.option("--allow-dirty", is_flag=True, help="Promote numbers of a tree with uncommitted changes.")
@click.option("--add", is_flag=True, help="Keep the stored runs of the same case, and add these.")
@click.option("--baselines", help="Folder of baselines.  [default: baselines]")
def promote(
    results: tuple[Path, ...],
    reason: str,
    keyword: str,
    accept: tuple[str, ...],
    allow_dirty: bool,
    add: bool,
    **flags: Any,
) -> None:
    """Make the launches in RESULTS the baseline, and print what moved.

    Several files are runs of the same cases, on other days or machines of one kind: they are kept apart, and
    tell how far runs lie apart. With -k the other cases keep what is stored of them.
    """
    from msgspec.structs import replace

    from perfgate.gate.policy.promote import PromotionTerms
    from perfgate.gate.policy.promote import promote as promote_results
    from perfgate.report.run.moves import render_moves
    from perfgate.run.outputs import read_results

    settings = _load(flags)
    runs = [read_results(path) for path in results]
    chosen = [replace(run, cases=tuple(one for one in run.cases if keyword in one.case.id)) for run in runs]
    for path, run in zip(results, chosen, strict=True):
        if keyword and not run.cases:
            raise UsageError(f"selects no case of {path}: {keyword!r}", where="-k", fix="give part of an id")
    moves = promote_results(
        chosen,
        settings.path("baselines"),
        PromotionTerms(reason=reason, accept=accept, allow_dirty=allow_dirty, add=add),
        timing=results[0].parent / "timing",
    )
    click.echo(render_moves([(move.case_id, move.before_ns, move.after_ns) for move in moves]))


@cli.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.option("--format", "kind", type=click.Choice(FORMATS), default="terminal", show_default=True)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Write to a file instead of the screen."
)
@_language
@click.option("--history", "database", help="Show how each case moved, from this history. HTML only.")
def report(results: Path, kind: str, output: Path | None, language: str | None, database: str | None) -> None:
    """Render a results file; computes nothing and needs no GPU."""
    from perfgate.report import render
    from perfgate.run.outputs import read_results
    from perfgate.util.files import write_text

    result = read_results(results)
    spoken = language or _load({}).language
    if database and kind != "html":
        raise UsageError("is for HTML only", where="--history", fix="--format html, or perfgate trend")
    if kind == "terminal" and output is None:
        _show(result, spoken)
        return
    if database:
        from perfgate.report.run import html

        text = html.render(result, spoken, run_trends(result, database))
    else:
        text = render(result, kind, spoken)
    if output is not None:
        write_text(output, text)
    else:
        click.echo(text, nl=False)


@cli.command()
@_settings_options
def doctor(**flags: Any) -> None:
    """Say what this machine can do, why not more, and the remedy."""
    from perfgate.engine import get_backend
    from perfgate.run.doctor import examine

    settings = _load(flags)
    marks = {"ok": "✓", "note": "–", "broken": "✗"}
    for finding in examine(settings):
        click.echo(f"{marks[finding.state]} {finding.subject}: {finding.text}")
        if finding.remedy:
            click.echo(f"    remedy: {finding.remedy}")
    backend = get_backend(settings.backend, settings.device)
    if reason := backend.unavailable():
        raise InfrastructureError(f"no backend can run here: {reason}", fix="follow the remedies above")
    click.echo(f"Runs here: {backend.name} on {backend.device()}")


@cli.command()
@click.argument("kind", type=click.Choice(["results", "baseline", "model", "business"]))
def schema(kind: str) -> None:
    """Print the JSON Schema of results, baseline, model or business-case files."""
    import json

    import msgspec

    from perfgate.model.spec import ModelSpec
    from perfgate.records import Baseline, RunResult
    from perfgate.value.business import BusinessCase

    types: dict[str, type] = {
        "results": RunResult,
        "baseline": Baseline,
        "model": ModelSpec,
        "business": BusinessCase,
    }
    click.echo(json.dumps(msgspec.json.schema(types[kind]), indent=2, sort_keys=True))


for _command in (
    aa,
    alert,
    anchor,
    bisect,
    build,
    bundle,
    explain,
    exporter,
    github,
    history,
    image,
    merge,
    metrics,
    power,
    precision,
    site,
    throughput,
    trend,
    value,
):
    cli.add_command(_command)
cli.add_command(export)


def _load(flags: dict[str, Any]) -> Settings:
    from perfgate.settings import load_settings

    return load_settings(flags, start=Path.cwd())


def _show(result: RunResult, language: str) -> None:
    from rich.console import Console

    from perfgate.report.run.terminal import print_result

    print_result(result, Console(), language)


def _leave(result: RunResult) -> None:
    raise Exit(result.summary.exit_code if result.summary else 0)
