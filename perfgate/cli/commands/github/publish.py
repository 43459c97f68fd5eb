"""`perfgate github publish`: tell the pull request."""

import rich_click as click
from click.exceptions import Exit

from perfgate.errors import InfrastructureError

GATE = ".github/workflows/gate.yml"


@click.command()
@click.option("--workflow", default=GATE, show_default=True, help="The workflow file whose runs count.")
@click.option("--key", default="perfgate", show_default=True, help="Tells several gates' comments apart.")
@click.option("--author", default="github-actions[bot]", show_default=True, help="Who our comments are by.")
@click.option("--new-comment", is_flag=True, help="Post another comment instead of updating the first one.")
@click.option("--check", is_flag=True, help="Make a check run with annotations too (checks: write).")
def publish(workflow: str, key: str, author: str, new_comment: bool, check: bool) -> None:
    """Tell the pull request of a `workflow_run` event: the status perfgate/gate, and one comment.

    Works on the run that the event names, requested or completed. Its results are fetched from its
    artifacts and read as hostile data; the pull request comes from the event's own fields, checked against
    the API. A comment that cannot be posted changes no status, and ends this command with 3.
    """
    from perfgate.run.pull_request import PublishOptions, PullRequestPublisher

    options = PublishOptions(workflow=workflow, key=key, author=author, new_comment=new_comment, check=check)
    faults = PullRequestPublisher(options, click.echo).run()
    for fault in faults:
        click.echo(f"perfgate: error: {fault}", err=True)
        click.echo(f"::error title=perfgate could not publish::{fault.what}")
    if faults:
        raise Exit(InfrastructureError.exit_code)
