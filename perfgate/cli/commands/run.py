"""`perfgate run`: build, measure and gate the models."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from perfgate.cli.options import keyword_option, leave, load, settings_options, show
from perfgate.errors import UsageError
from perfgate.util.files import check_writable

if TYPE_CHECKING:
    from perfgate.run.analysis.paired import PairedBase


@click.command()
@click.argument("paths", nargs=-1, type=click.Path(path_type=Path))
@keyword_option
@click.option("--engine", type=click.Path(path_type=Path), help="Gate this prebuilt engine file.")
@settings_options(
    "mode",
    "launches",
    "duration_ms",
    "remeasure",
    "all_cases",
    "require_baseline",
    "lock_clocks_mhz",
    "ignore",
    "catch",
)
@click.option("--paired", metavar="REV", help="Build and launch REV too, or `.`, and compare with that.")
@click.option("--base-python", metavar="P", help="With --paired: the interpreter of base.")
@click.option("--base-image", metavar="I", help="With --paired: the container image of base.")
@click.option(
    "--release", "--anchor", metavar="TAG", help="Compare with this release: its baselines and engines."
)
@settings_options("policy_from", "base", "target", "confirm_budget")
@click.option("--leg", help="This runner's name in a matrix; stated in the results for `perfgate merge`.")
@click.option("--shard", metavar="I/N", help="Measure share I of N of the cases, stated in the results.")
@settings_options("language", "models", "baselines", "out", "backend", "device")
def run(
    paths: tuple[Path, ...], keyword: str, engine: Path | None, release: str | None, **flags: Any
) -> None:
    """Build, measure and gate the models (all of models/ where no PATHS are given).

    Example: perfgate run models/resnet50.toml -k fp16
    """
    from msgspec.structs import replace

    from perfgate.gate.policy.active import ActivePolicy
    from perfgate.gate.verdict.summary import of_share
    from perfgate.run.outputs import write_outputs
    from perfgate.run.pipeline import Pipeline
    from perfgate.run.shards import read_scope, share
    from perfgate.util.progress import make_progress

    other = _paired_with(flags)
    leg, shard = flags.pop("leg"), flags.pop("shard")
    settings = load(flags)
    progress = make_progress()
    with progress:
        check_writable(settings.path("out"))
        policy = ActivePolicy(settings, flags)
        if release:
            policy.compare_to_release(release)
        pipeline = Pipeline(settings, progress, policy)
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
    show(result, settings.language)
    click.echo("\n".join(f"wrote {path}" for path in written), err=True)
    leave(result)


def _paired_with(flags: dict[str, Any]) -> PairedBase | None:
    """What `perfgate run --paired` names, taken out of the flags; None without it."""
    revision, python, image = (flags.pop(name) for name in ("paired", "base_python", "base_image"))
    if revision is None:
        if python or image:
            raise UsageError("goes with --paired", where="--base-python, --base-image", fix="--paired REV")
        return None
    from perfgate.run.analysis.paired import PairedBase

    return PairedBase(revision=revision, python=python or "", image=image or "")
