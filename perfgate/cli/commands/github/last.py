"""`perfgate github last`: find the newest night that kept an artifact."""

import rich_click as click

NIGHTLY = ".github/workflows/nightly.yml"


@click.command()
@click.argument("artifact")
@click.option("--branch", required=True, help="The default branch: only what ran on its commits counts.")
@click.option("--workflow", default=NIGHTLY, show_default=True, help="The workflow file whose runs count.")
def last(artifact: str, branch: str, workflow: str) -> None:
    """Find the newest night that kept ARTIFACT; output `run`: its id, empty where there is none yet.

    Only a run that the default branch alone can have made counts, whatever a pull request uploads.
    """
    from perfgate.publish.github import environment
    from perfgate.publish.github.job import set_outputs
    from perfgate.publish.github.last_artifact import last_kept

    kept = last_kept(environment.client(), artifact, branch=branch, workflow=workflow)
    set_outputs(environment.runner_file("GITHUB_OUTPUT"), {"run": str(kept.run or "")})
    if kept.expired:
        click.echo(f"::warning title=perfgate::{artifact} of run {kept.expired} has expired")
    click.echo(f"{artifact}: {f'run {kept.run}' if kept.run else 'no night has kept one yet'}")
