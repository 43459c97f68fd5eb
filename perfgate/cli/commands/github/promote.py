"""`perfgate github promote`: propose results as baselines."""

from pathlib import Path

import rich_click as click

from perfgate.cli.options import load


@click.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reason", required=True, help="Why these numbers are right; kept in the baseline.")
@click.option("--branch", default="perfgate/promote", show_default=True, help="The branch to propose from.")
@click.option("--onto", default="main", show_default=True, help="The branch that it is to go into.")
def promote(results: tuple[Path, ...], reason: str, branch: str, onto: str) -> None:
    """Propose RESULTS as baselines: promotes them here, and opens a pull request with what moved.

    With PERFGATE_APP_ID and PERFGATE_APP_KEY in the environment a GitHub App opens it, and its checks start
    at once; otherwise GITHUB_TOKEN does, and they wait for an approval, as the text then says.
    """
    from perfgate.gate.policy.promote import PromotionTerms, promote as promote_results
    from perfgate.publish.github import environment
    from perfgate.publish.github.propose import WAITING_NOTE, Proposal, propose
    from perfgate.report.run.moves import moves_text
    from perfgate.run.outputs import read_results

    settings = load({})
    folder = settings.path("baselines")
    before, terms = _tree(folder), PromotionTerms(reason=reason)
    moves: list[tuple[str, float | None, float | None]] = []
    for path in results:
        # A leg is another machine: each is promoted by itself.
        made = promote_results([read_results(path)], folder, terms, timing=path.parent / "timing")
        moves += [(move.case_id, move.before_ns, move.after_ns) for move in made]
    after = _tree(folder)
    changed = {
        name: after.get(name) for name in before.keys() | after.keys() if before.get(name) != after.get(name)
    }
    if not changed:
        click.echo("nothing moved: no pull request")
        return
    root = Path(settings.root).resolve()
    files = {str((folder.resolve() / name).relative_to(root)): data for name, data in changed.items()}
    app = environment.app_client()
    note = WAITING_NOTE if app is None else ""
    proposal = Proposal(
        branch=branch,
        base=onto,
        title=f"Promote {len(moves)} baselines",
        body=moves_text(moves, reason, note=note, url=environment.run_url()),
        files=files,
    )
    number = propose(app or environment.client(), proposal)
    click.echo(f"pull request #{number}: {len(moves)} cases in {len(files)} files")


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
