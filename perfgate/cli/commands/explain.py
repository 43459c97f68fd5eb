"""`perfgate explain`: show why a case is slower."""

from pathlib import Path

import rich_click as click

from perfgate.cli.lookup import case_of


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("case")
def explain(results: Path, case: str) -> None:
    """Show why CASE is slower, as the run that wrote RESULTS found out. Measures nothing.

    Example: perfgate explain perfgate-out/results.json resnet50/fp16/b8
    """
    from perfgate.report.explanation import explanation_text

    _, found = case_of(results, case)
    if found.explanation is None:
        verdict = found.judgement.verdict.value if found.judgement else "not judged"
        click.echo(f"{case}: {verdict}; a run explains what it confirms as a REGRESSION, and nothing else")
        return
    click.echo(explanation_text(case, found.explanation))
