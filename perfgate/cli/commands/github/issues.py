"""`perfgate github issues`: one issue a regression."""

from pathlib import Path

import rich_click as click


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--author", default="github-actions[bot]", show_default=True, help="Who our issues are by.")
def issues(results: tuple[Path, ...], author: str) -> None:
    """One issue a regression in RESULTS (files, or folders): opened, kept up to date, closed on recovery."""
    from perfgate.publish.github import environment
    from perfgate.publish.github.issues import Regression, issue_key, recovered, sync
    from perfgate.publish.github.owners import owners_of, read_owners
    from perfgate.records import Verdict
    from perfgate.report.run.legs import issue_text
    from perfgate.run import merge as merging

    legs = merging.read_legs(
        merging.find_results(list(results)), expected=environment.expected_legs(required=False)
    )
    rules = read_owners(Path.cwd())
    found = {}
    for leg in legs:
        for case in leg.result.cases if leg.result else ():
            if not case.judgement or case.judgement.verdict is not Verdict.REGRESSION:
                continue
            text = issue_text(
                leg.name,
                case,
                commit=leg.result.commit.sha if leg.result else "",
                owners=owners_of(case.case.source, rules),
                url=environment.run_url(),
            )
            title = f"perfgate: {case.case.id} regressed on {leg.name}"
            found[issue_key(leg.name, case.case.id)] = Regression(title=title, text=text)
    changes = sync(environment.client(), found, recovered(legs), author=author)
    for word, numbers in (
        ("opened", changes.opened),
        ("updated", changes.updated),
        ("closed", changes.closed),
    ):
        click.echo(f"{word}: {', '.join(f'#{number}' for number in numbers) or 'none'}")
