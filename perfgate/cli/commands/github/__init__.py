"""`perfgate github …`: what the workflows of `.github/` run."""

import rich_click as click

from perfgate.cli.commands.github.annotate import annotate
from perfgate.cli.commands.github.issues import issues
from perfgate.cli.commands.github.last import last
from perfgate.cli.commands.github.plan import plan
from perfgate.cli.commands.github.promote import promote
from perfgate.cli.commands.github.publish import publish


@click.group(commands=[plan, annotate, publish, issues, promote, last])
def github() -> None:
    """Publish on GitHub: comment, status, annotations, summary, nightly issues.

    Everything comes from the runner's own environment (GITHUB_REPOSITORY, GITHUB_EVENT_PATH, …); the token
    from GITHUB_TOKEN alone. On GitHub Enterprise, GITHUB_API_URL says where the API is.
    """
