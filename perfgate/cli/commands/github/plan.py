"""`perfgate github plan`: what a job is to measure."""

import json
import os

import rich_click as click


@click.command()
def plan() -> None:
    """What is to be measured: checks a maintainer's dispatch, and sets the outputs of the planning job.

    Outputs: `measure` (false for a fork's pull request), `ref` and `base` (full SHAs), `legs` (a JSON list),
    `image` (the container's image, pinned by digest).
    """
    from perfgate.publish.github import environment
    from perfgate.publish.github.job import set_outputs
    from perfgate.publish.github.resolve import check_dispatch

    event = environment.event()
    ref = os.environ.get("GITHUB_SHA", "")
    base = event.base_sha
    if event.dispatch:
        target = check_dispatch(environment.client(), event.dispatch)
        ref, base = target.sha, target.base_sha
    if event.name == "merge_group":
        ref = event.head_sha
    measure = not (event.name == "pull_request" and event.fork)
    values = {"measure": str(measure).lower(), "ref": ref, "base": base}
    if measure:
        values |= {"legs": json.dumps(environment.expected_legs(required=True)), "image": _image()}
    else:
        values |= {"legs": "[]", "image": ""}
        click.echo(
            "::notice title=perfgate::a fork's pull request is measured when a maintainer asks for it: "
            f"Actions, gate, Run workflow, #{event.number} and {event.head_sha}"
        )
    set_outputs(environment.runner_file("GITHUB_OUTPUT"), values)
    for name, value in values.items():
        click.echo(f"{name}={value}")


def _image() -> str:
    """The container's image: by digest, or nothing is measured in it."""
    from perfgate.image.reference import parse_reference

    return str(parse_reference(os.environ.get("PERFGATE_IMAGE", ""), where="PERFGATE_IMAGE"))
