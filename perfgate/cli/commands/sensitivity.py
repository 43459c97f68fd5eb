"""`perfgate sensitivity`: what the gate can see of each stored case."""

from __future__ import annotations

from typing import Any

import rich_click as click

from perfgate.cli.options import keyword_option, load, settings_options
from perfgate.cli.text import show_power
from perfgate.errors import UsageError
from perfgate.records import Mode, Tolerance
from perfgate.settings import Settings


@click.command()
@keyword_option
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
@click.option("--ignore", type=float, help="Slowdown to ignore, as a share.")
@click.option("--catch", type=float, help="Slowdown to catch, as a share.")
@settings_options("baselines")
def sensitivity(keyword: str, as_json: bool, **flags: Any) -> None:
    """What the gate can see of each stored case, by simulation from its launches; measures nothing.

    Example: perfgate sensitivity -k resnet50
    """
    from perfgate.gate.baselines import days_of, read_baseline, runs_of
    from perfgate.gate.statistics.power import power as simulate
    from perfgate.gate.statistics.sequential import BUDGET
    from perfgate.util.files import record_json

    settings = load(flags)
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
                show_power(answer)
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

    folder = settings.path("models")
    specs = read_specs([folder]) if folder.is_dir() else []
    default = settings.tolerance(kind)
    return {
        case.id: case.tolerance
        for spec in specs
        for case in expand(spec, backend=settings.backend, default_mode=Mode(), tolerance=default)
    }
