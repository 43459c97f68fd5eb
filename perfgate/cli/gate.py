"""The commands about the gate itself: release anchors, what it can see, and this machine's own noise."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click

from perfgate.errors import UsageError

if TYPE_CHECKING:
    from perfgate.gate.statistics.power import Power
    from perfgate.records import Tolerance
    from perfgate.run.analysis.paired import PairedBase
    from perfgate.settings import Settings


@click.command()
@click.argument("tag")
@click.option("--replace", is_flag=True, help="Also where this anchor is there already.")
@click.option("--baselines", help="Folder of baselines.  [default: baselines]")
def anchor(tag: str, replace: bool, **flags: Any) -> None:
    """Keep today's baselines aside as release TAG; `perfgate run --anchor TAG` holds a tree against it.

    Each commit may lose less than is caught, and many of them add up: against a release they are seen.
    """
    from perfgate.gate.policy.releases import store_release
    from perfgate.settings import load_settings

    settings = load_settings(flags, start=Path.cwd())
    for path in store_release(settings.path("baselines"), tag, replace=replace):
        click.echo(f"wrote {path}")
    click.echo(f"compare with it: perfgate run --anchor {tag}")


def paired_with(flags: dict[str, Any]) -> PairedBase | None:
    """What `perfgate run --paired` names, taken out of the flags; None without it."""
    revision, python, image = (flags.pop(name) for name in ("paired", "base_python", "base_image"))
    if revision is None:
        if python or image:
            raise UsageError("goes with --paired", where="--base-python, --base-image", fix="--paired REV")
        return None
    from perfgate.run.analysis.paired import PairedBase

    return PairedBase(revision=revision, python=python or "", image=image or "")


@click.command()
@click.argument("case")
@click.option(
    "--minutes",
    type=click.FloatRange(0, 600),
    default=5.0,
    show_default=True,
    help="How long to launch.",
)
@click.option(
    "--rebuilds", type=click.IntRange(0, 20), default=2, show_default=True, help="Engines built again."
)
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--models", help="Folder of model specs.  [default: models]")
@click.option("--backend", help="auto, tensorrt, onnxruntime, …  [default: auto]")
@click.option("--device", help="auto, cpu, or a GPU's index or UUID.  [default: auto]")
def aa(case: str, minutes: float, rebuilds: int, as_json: bool, **flags: Any) -> None:
    """Launch CASE against itself for some minutes: what this machine's noise lets the gate see.

    Reports real A/A gates with the exact bound on false alarms, rebuilt engines, the smallest slowdown that
    is caught in 95 % of gates, and the launches and tolerance that it suggests.
    """
    from perfgate.cli.engines import pipeline_of
    from perfgate.run.analysis.aa import AABudget, measure_noise
    from perfgate.util.files import record_json
    from perfgate.util.progress import make_progress

    with make_progress() as progress:
        pipeline, selected = pipeline_of(case, progress, flags)
        found = measure_noise(pipeline, selected, AABudget(minutes=minutes, rebuilds=rebuilds))
    if as_json:
        click.echo(record_json(found), nl=False)
        return
    alike = found.alike
    click.echo(
        f"{found.case}: {found.launches} valid launches in {found.seconds:.0f} s, {found.invalid} invalid"
    )
    click.echo(
        f"  A/A      {alike.gates} gates, {alike.alarms} false alarms (95 % bound {alike.upper:.2%}), "
        f"{alike.improvements} false gains, {alike.undecided} undecided"
    )
    for one in found.rebuilds:
        bytes_ = "the same bytes" if one.same_bytes else "other bytes"
        click.echo(f"  rebuilt         {bytes_}, {one.ratio - 1:+.2%} over {one.launches} launches")
    _show_power(found.power)


@click.command()
@click.option("-k", "keyword", default="", help="Only cases whose id contains this text.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--ignore", type=float, help="Slowdown to ignore, as a share.")
@click.option("--catch", type=float, help="Slowdown to catch, as a share.")
@click.option("--baselines", help="Folder of baselines.  [default: baselines]")
def power(keyword: str, as_json: bool, **flags: Any) -> None:
    """What the gate can see of each stored case, by simulation from its launches; measures nothing."""
    from perfgate.gate.baselines import days_of, read_baseline, runs_of
    from perfgate.gate.statistics.power import power as simulate
    from perfgate.gate.statistics.sequential import BUDGET
    from perfgate.settings import load_settings
    from perfgate.util.files import record_json

    settings = load_settings(flags, start=Path.cwd())
    found = {}
    for path in sorted(settings.path("baselines").glob("*/*/*.json")):
        kind = "cpu" if path.parts[-3].startswith("cpu-") else "gpu"
        own = _tolerances(settings, kind)
        for case_id, case in read_baseline(path).cases.items():
            if keyword not in case_id:
                continue
            answer = simulate(
                runs_of(case),
                own.get(case_id, settings.tolerance(kind)),
                kind,
                days=days_of(case),
                budget=settings.budget()[0] or BUDGET,
            )
            found[f"{'/'.join(path.parts[-3:-1])} {case_id}"] = answer
            if not as_json:
                click.echo(f"{case_id} ({'/'.join(path.parts[-3:-1])})")
                _show_power(answer)
    if not found:
        raise UsageError(
            "no stored case is selected", where=settings.path("baselines"), fix="perfgate promote"
        )
    if as_json:
        click.echo(record_json(found), nl=False)


def _tolerances(settings: Settings, kind: str) -> dict[str, Tolerance]:
    """What the specs say, by case; a case that no spec makes any more has the default."""
    from perfgate.model.cases import expand
    from perfgate.model.read import read_specs
    from perfgate.records import Mode

    folder = settings.path("models")
    specs = read_specs([folder]) if folder.is_dir() else []
    default = settings.tolerance(kind)
    return {
        case.id: case.tolerance
        for spec in specs
        for case in expand(spec, backend=settings.backend, default_mode=Mode(), tolerance=default)
    }


def _show_power(found: Power) -> None:
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
