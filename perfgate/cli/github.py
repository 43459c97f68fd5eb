"""`perfgate github …` and `perfgate merge`: what the workflows of `.github/` run."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import rich_click as click
from click.exceptions import Exit

from perfgate.errors import InfrastructureError, PerfgateError, UsageError

if TYPE_CHECKING:
    from perfgate.publish.github.events import Event
    from perfgate.publish.github.resolve import Target
    from perfgate.publish.github.verdict import Decision
    from perfgate.records import Leg

T = TypeVar("T")

GATE = ".github/workflows/gate.yml"
NIGHTLY = ".github/workflows/nightly.yml"


@click.group()
def github() -> None:
    """Publish on GitHub: comment, status, annotations, summary, nightly issues.

    Everything comes from the runner's own environment (GITHUB_REPOSITORY, GITHUB_EVENT_PATH, …); the token
    from GITHUB_TOKEN alone. On GitHub Enterprise, GITHUB_API_URL says where the API is.
    """


@github.command()
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


@github.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
def annotate(results: tuple[Path, ...]) -> None:
    """Show RESULTS in this job: summary, annotations, outputs. Needs no token; ends as the results do."""
    from perfgate.publish.github import environment
    from perfgate.publish.github.checks import annotate as annotations
    from perfgate.publish.github.checks import commands
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


@github.command()
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
    _Publishing(workflow, key, author, new_comment, check).run()


class _Publishing:
    """One event from its run to the pull request; each step's fault is told, none hides another."""

    def __init__(self, workflow: str, key: str, author: str, new_comment: bool, check: bool) -> None:
        from perfgate.publish.github import environment

        self._workflow, self._key, self._author = workflow, key, author
        self._new_comment, self._check = new_comment, check
        self._client = environment.client()
        self._faults: list[PerfgateError] = []

    def run(self) -> None:
        from perfgate.publish.github import environment
        from perfgate.publish.github.resolve import resolve
        from perfgate.publish.github.verdict import decide
        from perfgate.report.run.legs import headline
        from perfgate.run.merge import exit_code

        event = environment.event()
        if event.run is None:
            raise UsageError(f"is {event.name}, not workflow_run", where="GITHUB_EVENT_NAME")
        target = resolve(self._client, event, workflow=self._workflow)
        legs: tuple[Leg, ...] | None = None
        if target.trusted and event.run.finished:
            legs = self._attempt("the results", lambda: self._fetch(event))
        code = exit_code(legs) if legs is not None else None
        said = headline(legs, code) if legs is not None and code is not None else ""
        fits = bool(legs) and self._fits(legs or (), target)
        decision = decide(event.run, target, exit_code=code, headline=said, fits=fits)
        self._status(decision, target, event)
        if decision.comment and legs is not None and code is not None:
            self._comment(legs, code, target, event)
        for fault in self._faults:
            click.echo(f"perfgate: error: {fault}", err=True)
            click.echo(f"::error title=perfgate could not publish::{fault.what}")
        if self._faults:
            raise Exit(InfrastructureError.exit_code)

    def _fetch(self, event: Event) -> tuple[Leg, ...] | None:
        from perfgate.publish.github import environment
        from perfgate.publish.github.artifacts import fetch_results
        from perfgate.run import merge as merging
        from perfgate.util.files import write_bytes

        shards = fetch_results(self._client, event.run.id if event.run else 0)
        if not shards:
            return None
        with tempfile.TemporaryDirectory(prefix="perfgate-") as folder:
            paths = []
            for number, shard in enumerate(shards):
                paths.append(Path(folder) / str(number) / "results.json")
                write_bytes(paths[-1], shard.data)
            return merging.read_legs(paths, expected=environment.expected_legs(required=True))

    def _fits(self, legs: tuple[Leg, ...], target: Target) -> bool:
        from perfgate.publish.github.resolve import measured_commit_fits

        shas = {leg.result.commit.sha for leg in legs if leg.result}
        return all(measured_commit_fits(self._client, sha, target) for sha in shas)

    def _status(self, decision: Decision, target: Target, event: Event) -> None:
        from perfgate.publish.github.status import current_state, set_status

        url = event.run.url if event.run else ""
        before: str | None = ""
        if not target.trusted:
            before = self._attempt("the status", lambda: current_state(self._client, target.sha))
        if before:
            # A maintainer's run has spoken already; the stranger's own run does not take that back.
            click.echo("a status is there already, and a fork's own run does not change it")
            return
        self._attempt(
            "the status",
            lambda: set_status(self._client, target.sha, decision.state, decision.text, url=url),
        )
        click.echo(f"perfgate/gate on {target.sha[:12]}: {decision.state}, {decision.text}")

    def _comment(self, legs: tuple[Leg, ...], code: int, target: Target, event: Event) -> None:
        from perfgate.publish.github.comment import upsert
        from perfgate.publish.github.resolve import head_moved
        from perfgate.report.run.legs import headline, markdown

        number = target.number
        if number is None:
            click.echo(f"no comment: {target.stale or 'this run belongs to no pull request'}")
            return
        if self._attempt("the comment", lambda: head_moved(self._client, target)):
            click.echo(f"no comment: the head of #{number} has moved on, its own run will speak")
            return
        links = [("the workflow run, with reports", event.run.url)] if event.run and event.run.url else []
        text = markdown(legs, code, links=links)
        posted = self._attempt(
            "the comment",
            lambda: upsert(
                self._client, number, text, key=self._key, author=self._author, always_new=self._new_comment
            ),
        )
        if posted:
            click.echo(f"comment {'made' if posted.created else 'updated'}: {posted.url}")
        if self._check:
            self._attempt("the check run", lambda: self._make_check(legs, code, target, headline(legs, code)))

    def _make_check(self, legs: tuple[Leg, ...], code: int, target: Target, title: str) -> int:
        from perfgate.publish.github.checks import annotate as annotations
        from perfgate.publish.github.checks import check_run
        from perfgate.report.run.legs import markdown

        found = [one for leg in legs if leg.result for one in annotations(leg.result)]
        conclusion: Literal["success", "failure"] = "success" if code == 0 else "failure"
        return check_run(self._client, target.sha, conclusion, title, markdown(legs, code), found)

    def _attempt(self, what: str, act: Callable[[], T]) -> T | None:
        try:
            return act()
        except PerfgateError as error:
            error.what = f"{what}: {error.what}"
            self._faults.append(error)
            return None


@github.command()
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


@github.command()
@click.argument("results", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--reason", required=True, help="Why these numbers are right; kept in the baseline.")
@click.option("--branch", default="perfgate/promote", show_default=True, help="The branch to propose from.")
@click.option("--onto", default="main", show_default=True, help="The branch that it is to go into.")
def promote(results: tuple[Path, ...], reason: str, branch: str, onto: str) -> None:
    """Propose RESULTS as baselines: promotes them here, and opens a pull request with what moved.

    With PERFGATE_APP_ID and PERFGATE_APP_KEY in the environment a GitHub App opens it, and its checks start
    at once; otherwise GITHUB_TOKEN does, and they wait for an approval, as the text then says.
    """
    from perfgate.gate.policy.promote import PromotionTerms
    from perfgate.gate.policy.promote import promote as promote_results
    from perfgate.publish.github import environment
    from perfgate.publish.github.propose import WAITING_NOTE, Proposal, propose
    from perfgate.report.run.legs import moves_text
    from perfgate.run.outputs import read_results
    from perfgate.settings import load_settings

    settings = load_settings({}, start=Path.cwd())
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


@github.command()
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


@click.command()
@click.argument("shards", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--expect", multiple=True, metavar="LEG", help="A leg that has to be there; repeatable.")
@click.option("--out", type=click.Path(path_type=Path), default=Path("perfgate-out"), show_default=True)
@click.option("--trends", default="", metavar="LINK", help="Where the first page finds the site of trends.")
def merge(shards: tuple[Path, ...], expect: tuple[str, ...], out: Path, trends: str) -> None:
    """Join the results of a matrix: SHARDS are results files, or folders that hold some.

    Writes OUT/<leg>/results.json and report.html, OUT/index.html and OUT/comment.md. A shard or an expected
    leg that did not arrive, a case that none or two measured: exit 3, and 1 where a case is red.
    """
    from perfgate.publish.github import environment
    from perfgate.report.run.legs import headline, index, markdown
    from perfgate.run import merge as merging
    from perfgate.run.merge import exit_code
    from perfgate.run.outputs import write_outputs
    from perfgate.util.files import write_text

    paths = merging.find_results(list(shards))
    legs = merging.read_legs(paths, expected=list(expect) or environment.expected_legs(required=False))
    for leg in legs:
        if leg.result:
            write_outputs(leg.result, out / leg.name)
            merging.copy_timing(leg.result, paths, out / leg.name)
        for fault in leg.faults:
            click.echo(f"perfgate: {leg.name}: {fault}", err=True)
    code = exit_code(legs)
    write_text(out / "index.html", index(legs, code, trends=trends))
    write_text(out / "comment.md", markdown(legs, code))
    click.echo(headline(legs, code))
    raise Exit(code)


def _image() -> str:
    """The container's image: by digest, or nothing is measured in it."""
    from perfgate.image.reference import parse_reference

    return str(parse_reference(os.environ.get("PERFGATE_IMAGE", ""), where="PERFGATE_IMAGE"))


def _tree(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
