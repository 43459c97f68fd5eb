"""A change cannot rewrite its own judge: one that regresses and loosens its tolerance exits 1."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from repository import Repository

pytest_plugins = ["cli_project", "repository"]
JUDGED_BY_BASE = ("run", "--policy-from", "base")


def loosen_the_spec(repository: Repository) -> None:
    repository.change("models/tinyconv.toml", "[source]", "ignore = 8.0\ncatch = 9.0\n[source]")


def loosen_the_settings(repository: Repository) -> None:
    repository.change("pyproject.toml", "ignore = 1.0\ncatch = 2.0", "ignore = 8.0\ncatch = 9.0")


def edit_the_baseline(repository: Repository) -> None:
    def slower(table: Any) -> None:
        for case in table["cases"].values():
            case["metrics"]["latency_ns"] = [value * 9 for value in case["metrics"]["latency_ns"]]

    repository.edit_baseline(slower)


def delete_the_baseline(repository: Repository) -> None:
    shutil.rmtree(repository.root / "baselines")


def waive_itself(repository: Repository) -> None:
    (repository.root / "baselines/waivers.toml").write_text(WAIVER.format(expires="2999-01-01"))


def loosen_the_case(repository: Repository) -> None:
    with (repository.root / "models/tinyconv.toml").open("a") as spec:
        spec.write('\n[[rule]]\ncases = "*"\nignore = 8.0\ncatch = 9.0\n')


def skip_it(repository: Repository) -> None:
    with (repository.root / "models/tinyconv.toml").open("a") as spec:
        spec.write('\n[[skip]]\nreason = "of no interest any more"\n')


WAIVER = """
[[waiver]]
case = "tinyconv/fp32/b1"
reason = "the new middle needs it"
owner = "ana@example.org"
link = "https://example.org/7"
expires = {expires}
"""


@pytest.fixture
def strict(repository: Repository) -> Repository:
    """Main judges with the tests' wide tolerances, written down where a change can reach them."""
    repository.change("pyproject.toml", "launches = 3", "launches = 3\nignore = 1.0\ncatch = 2.0")
    repository.commit("tolerances")
    repository.branch("change")
    return repository


def loosen_all(repository: Repository) -> None:
    """Each of these alone would let the regression through, were it believed."""
    for loosen in (
        loosen_the_spec,
        loosen_the_case,
        loosen_the_settings,
        edit_the_baseline,
        waive_itself,
        skip_it,
    ):
        loosen(repository)


LOOSENED = (
    "models/tinyconv.toml: catch",
    "models/tinyconv.toml: rule",
    "models/tinyconv.toml: skip",
    "pyproject.toml: tool.perfgate.catch",
    "tinyconv.json: tinyconv/fp32/b1",
    "waivers.toml: tinyconv/fp32/b1",
)


@pytest.mark.parametrize(
    ("loosen", "said"),
    [(loosen_all, LOOSENED), (delete_the_baseline, ("tinyconv.json: tinyconv/fp32/b1",))],
    ids=["loosened", "deleted"],
)
def test_a_change_that_regresses_and_loosens_its_judge_exits_1(
    strict: Repository, loosen: Callable[[Repository], None], said: tuple[str, ...]
) -> None:
    strict.slow_down()
    loosen(strict)
    strict.commit("deeper, and not to be seen")
    done = strict(*JUDGED_BY_BASE)
    assert done.returncode == 1, done.stdout + done.stderr
    assert strict.verdicts()[strict.CASE] == "REGRESSION"
    changes = json.loads(strict.results.read_text())["policy_changes"]
    for where in said:
        assert any(where in change["where"] for change in changes), where
    assert len(strict.git("worktree", "list").splitlines()) == 1


def test_a_case_deleted_with_its_baseline_is_missing(strict: Repository) -> None:
    (strict.root / "models/tinyconv.toml").unlink()
    delete_the_baseline(strict)
    strict.commit("never was")
    done = strict(*JUDGED_BY_BASE)
    assert done.returncode == 1
    assert strict.verdicts() == {strict.CASE: "MISSING"}
    assert "/tmp/" not in done.stdout
    # Accepted on base, it is waived.
    strict.git("checkout", "-q", "main")
    waive_itself(strict)
    strict.commit("it may go")
    strict.git("checkout", "-q", "change")
    assert strict("run", "--policy-from", "main").returncode == 0
    assert strict.verdicts() == {strict.CASE: "WAIVED"}


def test_pytest_is_judged_by_base_too(strict: Repository) -> None:
    strict.slow_down()
    loosen_the_spec(strict)
    strict.commit("deeper, and not to be seen")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-p",
            "no:cacheprovider",
            "--perfgate",
            "--perfgate-policy-from",
            "base",
        ],
        cwd=strict.root,
        env=strict.environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout
    assert "REGRESSION" in done.stdout


def test_a_policy_that_is_not_there_is_a_usage_error_and_nothing_runs(strict: Repository) -> None:
    done = strict("run", "--policy-from", "v9.9")
    assert done.returncode == 2
    assert "no such commit: v9.9" in done.stderr
    assert not (strict.root / ".perfgate").exists()


def test_a_regression_is_waived_until_its_day_and_fails_after_it(strict: Repository) -> None:
    strict.slow_down()
    waive_itself(strict)
    strict.commit("deeper, as agreed")
    done = strict("run")
    assert done.returncode == 0, done.stdout
    result = json.loads(strict.results.read_text())
    judgement = next(one["judgement"] for one in result["cases"] if one["case"]["id"] == strict.CASE)
    assert judgement["verdict"] == "WAIVED"
    assert "ana@example.org" in judgement["reason"]
    (strict.root / "baselines/waivers.toml").write_text(WAIVER.format(expires="2026-01-01"))
    strict.commit("too late")
    over = strict("run", "--base", "main")
    assert over.returncode == 1
    assert strict.verdicts()[strict.CASE] == "REGRESSION"
    assert "is over since 2026-01-01" in over.stdout
