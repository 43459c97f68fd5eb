"""The commands that build an engine and take it away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from perfgate.errors import RefusedError, UsageError

if TYPE_CHECKING:
    from perfgate.model.graph import Graph
    from perfgate.model.spec import ModelSpec
    from perfgate.records import Case, CaseResult
    from perfgate.run.pipeline import Pipeline


@click.command()
@click.argument("case")
@click.option("--models", help="Folder of model specs.  [default: models]")
@click.option("--backend", help="auto, tensorrt, onnxruntime, …  [default: auto]")
@click.option("--device", help="auto, cpu, or a GPU's index or UUID.  [default: auto]")
def build(case: str, **flags: Any) -> None:
    """Build the engine of CASE, with the baseline's timing cache where there is one."""
    from perfgate.util.progress import make_progress

    with make_progress() as progress:
        pipeline, selected = pipeline_of(case, progress, flags)
        engine, facts, _ = pipeline.build(selected)
    state = "from the cache" if facts.cached else f"built in {facts.build_ns / 1e9:.1f} s"
    click.echo(f"{case}: {state}")
    click.echo(f"  engine    {engine}")
    click.echo(f"  sha-256   {facts.digest}")
    click.echo(f"  size      {facts.engine_bytes / (1 << 20):.1f} MiB, {facts.layers} layers")
    shares = ", ".join(f"{name} {share:.0%}" for name, share in facts.precision_share.items())
    click.echo(f"  precision {shares or 'unknown'}")
    for note in facts.notes:
        click.echo(f"  note      {note}")


@click.command()
@click.argument("case")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--results", type=click.Path(path_type=Path), help="[default: perfgate-out/results.json]")
@click.option("--models", help="Folder of model specs.  [default: models]")
@click.option("--baselines", help="Folder of baselines.  [default: baselines]")
@click.option("--backend", help="auto, tensorrt, onnxruntime, …  [default: auto]")
@click.option("--device", help="auto, cpu, or a GPU's index or UUID.  [default: auto]")
@click.option("--allow-red", is_flag=True, help="Export an engine whose case is red all the same.")
def export(case: str, folder: Path, results: Path | None, allow_red: bool, **flags: Any) -> None:
    """Export the very engine of CASE that was gated, with a sidecar JSON that says what it is.

    A deployment that builds again may get other kernels; this is the one with the verdict.
    """
    from perfgate.engine.export import Gated, export_engine
    from perfgate.run.outputs import RESULTS_NAME, read_results
    from perfgate.util.progress import make_progress

    with make_progress() as progress:
        pipeline, selected = pipeline_of(case, progress, flags)
        run = read_results(results or pipeline.settings.path("out") / RESULTS_NAME)
        gated = next((one for one in run.cases if one.case.id == case), None)
        if gated is None or gated.judgement is None:
            raise UsageError(f"{case} is not in the results", where="export", fix="perfgate run, then export")
        if gated.judgement.verdict.exit_code and not allow_red:
            raise RefusedError(
                f"{case} is {gated.judgement.verdict.value}",
                where="export",
                fix="--allow-red exports it anyway",
            )
        expected = pipeline.gated_engine_digest(gated)
        # The build that was gated need not be the first: it is asked for by its bytes.
        engine, facts = pipeline.kept_engine(expected) or pipeline.build(selected)[:2]
        graph = gated_graph(pipeline, selected, gated)
    what = Gated(digest=expected, share=facts.precision_share, graph=graph)
    written = export_engine(engine, run, gated, folder, gated=what)
    click.echo("\n".join(f"wrote {path}" for path in written))


@click.command()
@click.argument("case")
@click.option("--most", type=click.IntRange(1, 64), default=8, show_default=True, help="Streams at most.")
@click.option("--launches", type=int, help="Launches a number of streams.  [default: 5]")
@click.option("--models", help="Folder of model specs.  [default: models]")
@click.option("--backend", help="auto, tensorrt, onnxruntime, …  [default: auto]")
@click.option("--device", help="auto, cpu, or a GPU's index or UUID.  [default: auto]")
@click.option("--mode", help="The mode that is spread over streams, such as graph+transfers.")
def throughput(case: str, most: int, **flags: Any) -> None:
    """Measure CASE on 1, 2, 4, … streams, and say at which its throughput is best. Judges nothing."""
    from perfgate.run.analysis.throughput import best, rate, stream_modes
    from perfgate.util.progress import make_progress

    with make_progress() as progress:
        pipeline, selected = pipeline_of(case, progress, flags)
        spread = stream_modes(selected[1], most)
        if refused := next(filter(None, map(pipeline.backend.refuses, spread)), None):
            raise UsageError(refused, where=case, fix="--most 1, or a backend with streams")
        outcomes = pipeline.measure_modes(selected, [one.mode for one in spread])
    rates = [rate(outcome, one) for outcome, one in zip(outcomes, spread, strict=True)]
    click.echo("streams   queries/s     items/s")
    for one in rates:
        click.echo(f"{one.streams:7}  {one.queries_per_s:10,.0f}  {one.items_per_s:10,.0f}")
    click.echo(f"best: {best(rates).streams} streams, {best(rates).items_per_s:,.0f} items a second")


def gated_graph(pipeline: Pipeline, selected: tuple[ModelSpec, Case], gated: CaseResult) -> Graph:
    """The graph of the case's engine. Raises `RefusedError` where the model is another by now."""
    from perfgate.model.graph import read_graph

    now, request = pipeline.asked(selected)
    assert now.recipe is not None
    if gated.recipe is None or now.recipe.onnx_digest != gated.recipe.onnx_digest:
        raise RefusedError(
            "the model is not the one that was gated, so nobody can say what the engine takes",
            where=gated.case.id,
            fix="check out the commit of the results, or perfgate run, then export",
        )
    return read_graph(Path(request.onnx))


def pipeline_of(case: str, progress: Any, flags: dict[str, Any]) -> tuple[Pipeline, tuple[ModelSpec, Case]]:
    from perfgate.run.pipeline import Pipeline
    from perfgate.settings import load_settings

    settings = load_settings(flags, start=Path.cwd())
    pipeline = Pipeline(settings, progress)
    plan = pipeline.plan([settings.path("models")])
    for spec, one in plan:
        if one.id == case:
            return pipeline, (spec, one)
    ids = ", ".join(one.id for _, one in plan)
    raise UsageError(f"no case is named {case!r}", where="CASE", fix=f"one of: {ids}")
