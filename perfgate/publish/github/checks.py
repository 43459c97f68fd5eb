"""Annotations: the worst cases first, on the model spec that each comes from.

As workflow commands GitHub shows ten errors a step and drops the rest without a word; a check run takes 50 a
request. (https://docs.github.com/en/actions/reference/workflows-and-actions/workflow-commands)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Final, Literal

from perfgate.publish.github.client import ApiError, GitHubClient
from perfgate.records import Case, Judgement, Record, RunResult, Verdict

PERMISSIONS: Final = "checks: write  # annotations"
NAME: Final = "perfgate"
SHOWN_IN_A_STEP: Final = 10
PER_REQUEST: Final = 50
MAX_ANNOTATIONS: Final = 200
_SUMMARY_LIMIT = 65_000
_TEXT_LIMIT = 1_000
_WORST_FIRST = (
    Verdict.REGRESSION,
    Verdict.ERROR,
    Verdict.MISSING,
    Verdict.INCONCLUSIVE,
    Verdict.INCOMPARABLE,
    Verdict.INVALID,
)


class Annotation(Record):
    """One line beside a file of the repository."""

    path: str
    level: Literal["failure", "warning"]
    title: str
    text: str


def annotate(result: RunResult) -> list[Annotation]:
    """One a case that is not well, worst first: by verdict, then by how much slower it became."""
    bad = [
        (case.case, case.judgement)
        for case in result.cases
        if case.judgement and case.judgement.verdict in _WORST_FIRST
    ]
    return [
        Annotation(
            path=_path(case.source),
            level="failure" if judgement.verdict.exit_code == 1 else "warning",
            title=f"{judgement.verdict.value} {case.id}"[:250],
            text=judgement.reason[:_TEXT_LIMIT] or judgement.verdict.value,
        )
        for case, judgement in sorted(bad, key=_severity)
    ]


def _severity(pair: tuple[Case, Judgement]) -> tuple[int, float, str]:
    case, judgement = pair
    ratio = judgement.ratio.estimate if judgement.ratio else 0.0
    return _WORST_FIRST.index(judgement.verdict), -ratio, case.id


def _path(source: str) -> str:
    # The name comes from a results file: only a plain path inside the repository is shown as one.
    plain = re.fullmatch(r"[A-Za-z0-9_][\w.-]*(/[A-Za-z0-9_][\w.-]*)*", source)
    return source if plain else "models"


def commands(found: Sequence[Annotation]) -> list[str]:
    """Workflow commands, at most as many as GitHub shows of a step; the last one counts what it hides."""
    kept = found if len(found) <= SHOWN_IN_A_STEP else found[: SHOWN_IN_A_STEP - 1]
    hidden = len(found) - len(kept)
    more = [f"::error title=perfgate::{_data(f'… and {hidden} more; the job summary has them all')}"]
    return [
        f"::{'error' if one.level == 'failure' else 'warning'} file={_property(one.path)},line=1,"
        f"title={_property(one.title)}::{_data(one.text)}"
        for one in kept
    ] + (more if hidden else [])


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")


def check_run(
    client: GitHubClient,
    sha: str,
    conclusion: Literal["success", "failure", "neutral"],
    title: str,
    summary: str,
    found: Sequence[Annotation],
) -> int:
    """Make the check run of a commit, with its annotations in batches; its id. Raises `ApiError`."""
    shown = list(found[:MAX_ANNOTATIONS])
    output: dict[str, Any] = {"title": title[:250], "summary": summary[:_SUMMARY_LIMIT]}
    body = {
        "name": NAME,
        "head_sha": sha,
        "status": "completed",
        "conclusion": conclusion,
        "output": {**output, "annotations": [_shown(one) for one in shown[:PER_REQUEST]]},
    }

    def known() -> Any:
        """The check run of that name, where an earlier attempt made it after all."""
        path = f"commits/{sha}/check-runs"
        listed = client.pages(path, key="check_runs", permissions=PERMISSIONS, check_name=NAME)
        return next(iter(listed), None)

    made = client.create("check-runs", body, permissions=PERMISSIONS, made=known)
    if not isinstance(made, dict) or not isinstance(made.get("id"), int):
        raise ApiError("did not answer with a check run", where="check-runs")
    for start in range(PER_REQUEST, len(shown), PER_REQUEST):
        batch = [_shown(one) for one in shown[start : start + PER_REQUEST]]
        client.write(
            "PATCH",
            f"check-runs/{made['id']}",
            {"output": {**output, "annotations": batch}},
            permissions=PERMISSIONS,
        )
    return int(made["id"])


def _shown(one: Annotation) -> dict[str, Any]:
    return {
        "path": one.path,
        "start_line": 1,
        "end_line": 1,
        "annotation_level": one.level,
        "title": one.title,
        "message": one.text,
    }
