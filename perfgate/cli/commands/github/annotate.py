"""`perfgate github annotate`: show results in this job."""

from pathlib import Path

import rich_click as click
from click.exceptions import Exit


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
def annotate(results: tuple[Path, ...]) -> None:
    """Show RESULTS in this job: summary, annotations, outputs. Needs no token; ends as the results do."""
    from perfgate.publish.github import environment
    from perfgate.publish.github.checks import annotate as annotations, commands
    from perfgate.publish.github.job import add_summary, set_outputs
    from perfgate.report.run.legs import headline, markdown
    from perfgate.run import merge as merging
    from perfgate.run.merge import exit_code

    legs = merging.read_legs(list(results), expected=[])
    code = exit_code(legs)
    add_summary(environment.runner_file("GITHUB_STEP_SUMMARY"), markdown(legs, code))
    found = [one for leg in legs if leg.result for one in annotations(leg.result)]
    for line in commands(found):
        click.echo(line)
    said = headline(legs, code)
    set_outputs(environment.runner_file("GITHUB_OUTPUT"), {"exit-code": str(code), "headline": said})
    click.echo(said)
    raise Exit(code)
