"""`perfgate export`: take the gated engine away."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from perfgate.cli.lookup import pipeline_of
from perfgate.cli.options import settings_options
from perfgate.errors import RefusedError, UsageError
from perfgate.model.graph import Graph, read_graph

if TYPE_CHECKING:
    from perfgate.model.spec import ModelSpec
    from perfgate.records import Case, CaseResult
    from perfgate.run.pipeline import Pipeline


@click.command()
@click.argument("case")
@click.option("--out", "folder", required=True, type=click.Path(path_type=Path), help="Folder to write to.")
@click.option("--results", type=click.Path(path_type=Path), help="[default: perfgate-out/results.json]")
@settings_options("models", "baselines", "backend", "device")
@click.option("--allow-red", is_flag=True, help="Export an engine whose case is red all the same.")
def export(case: str, folder: Path, results: Path | None, allow_red: bool, **flags: Any) -> None:
    """Export the very engine of CASE that was gated, with a sidecar JSON that says what it is.

    A deployment that builds again may get other kernels; this is the one with the verdict.

    Example: perfgate export resnet50/fp16/b8 --out deploy
    """
    from perfgate.engine.export import Gated, export_engine
    from perfgate.run.outputs import RESULTS_NAME, read_results

    with pipeline_of(case, flags) as (pipeline, selected):
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


def gated_graph(pipeline: Pipeline, selected: tuple[ModelSpec, Case], gated: CaseResult) -> Graph:
    """The graph of the case's engine. Raises `RefusedError` where the model is another by now."""
    now, request = pipeline.request_of(selected)
    assert now.recipe is not None
    if gated.recipe is None or now.recipe.onnx_digest != gated.recipe.onnx_digest:
        raise RefusedError(
            "the model is not the one that was gated, so nobody can say what the engine takes",
            where=gated.case.id,
            fix="check out the commit of the results, or perfgate run, then export",
        )
    return read_graph(Path(request.onnx))
