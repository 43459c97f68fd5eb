"""A bisection of a real git repository: 20 commits of tinyconv, one of them several times slower.

Engines that are the same byte for byte are not launched twice, so that few launches decide: another seed from
commit 11 on makes two engines of the same speed.
"""

from __future__ import annotations

import dataclasses
import json
import math
import subprocess
from pathlib import Path

import pytest

from perfgate.cli.commands.bisect import bisection_text
from perfgate.errors import RefusedError, SpecError, UsageError
from perfgate.measure.launch import EngineTarget, LaunchRequest
from perfgate.records import Commit, Launch, Verdict
from perfgate.run.base_engine import BaseEngine
from perfgate.run.bisect.drive import Bisection, bisect
from perfgate.run.bisect.step import SKIP, Finding, StepContext, Task, remembered, step
from perfgate.settings import Settings, load_settings

MODELS = Path(__file__).resolve().parents[2] / "models"
CASE = "tinyconv/fp32/b1"
# Few launches and a wide tolerance: the machine may be busy, and the planted slowdown is sixfold.
PROJECT = """[tool.perfgate]
backend = "onnxruntime"
device = "cpu"
duration_ms = 50
warmup_ms = 10
foreign_cpu_limit = 1.0
ignore = 0.5
catch = 1.5
"""
RESEEDED, PLANTED, BROKEN = 11, 13, 10


def git(folder: Path, *words: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", *identity, *words], cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def spec(seed: int, repeat: int) -> str:
    return f"""schema = "perfgate-trt/model/v1"
name = "tinyconv"
precisions = ["fp32"]
[source]
script = "tinyconv.py"
seed = {seed}
args = {{ repeat = {repeat} }}
[dims.b]
min = 1
opt = 1
max = 1
measure = [1]
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    root = tmp_path_factory.mktemp("bisect")
    git(root, "init", "-q", "-b", "main")
    models = root / "models"
    models.mkdir()
    (root / "pyproject.toml").write_text(PROJECT)
    (root / ".gitignore").write_text(".perfgate/\n")
    for name in ("tinyconv.py", "_graph.py"):
        (models / name).write_text((MODELS / name).read_text())
    commits = []
    for number in range(20):
        text = spec(int(number >= RESEEDED), 8 if number >= PLANTED else 1) + f"# change {number}\n"
        # One commit in the way cannot be tested at all.
        (models / "tinyconv.toml").write_text("broken" if number == BROKEN else text)
        git(root, "add", "-A")
        git(root, "commit", "-qm", f"change {number}")
        commits.append(git(root, "rev-parse", "HEAD"))
    (models / "tinyconv.toml").write_text("# the user's own uncommitted work\n")
    return root, commits


def settings_of(root: Path) -> Settings:
    return load_settings({}, start=root, environ={})


def test_the_planted_commit_is_found_for_real(repository: tuple[Path, list[str]]) -> None:
    root, commits = repository
    before = git(root, "status", "--porcelain"), git(root, "rev-parse", "HEAD"), git(root, "branch", "-a")
    said: list[str] = []
    found = bisect(settings_of(root), commits[0], "HEAD", CASE, said.append)
    assert found.first is not None
    assert found.first.sha == commits[PLANTED], bisection_text(found)
    assert found.ends.verdict is Verdict.REGRESSION
    assert found.sure
    assert found.confirmed is not None and found.confirmed.commit.sha == commits[PLANTED]
    assert len(found.steps) <= 7
    # The user's checkout, and git's own state, are as they were.
    assert (
        git(root, "status", "--porcelain"),
        git(root, "rev-parse", "HEAD"),
        git(root, "branch", "-a"),
    ) == before
    assert len(git(root, "worktree", "list").splitlines()) == 1
    assert not git(root, "for-each-ref", "refs/bisect")
    assert "is the first slower commit: change 13" in bisection_text(found)


def test_ends_that_do_not_differ_are_refused(repository: tuple[Path, list[str]]) -> None:
    root, commits = repository
    with pytest.raises(RefusedError, match="not confirmed slower"):
        bisect(settings_of(root), commits[0], commits[1], CASE, lambda _: None)


def test_ends_in_the_wrong_order_are_a_usage_error(repository: tuple[Path, list[str]]) -> None:
    root, commits = repository
    with pytest.raises(UsageError, match="no ancestor"):
        bisect(settings_of(root), commits[5], commits[2], CASE, lambda _: None)


def test_a_case_that_is_nowhere_is_named(repository: tuple[Path, list[str]]) -> None:
    root, commits = repository
    with pytest.raises(SpecError, match="no case is named 'nothing/fp32/b1'"):
        bisect(settings_of(root), commits[0], commits[5], "nothing/fp32/b1", lambda _: None)


class GivenLaunches:
    """A launch seam: the launches of each engine have its one median."""

    def __init__(self) -> None:
        self.medians_ns: dict[str, int] = {}
        self.taken = 0

    def __call__(self, request: LaunchRequest) -> Launch:
        assert isinstance(request.target, EngineTarget)
        self.taken += 1
        ns = self.medians_ns[request.target.engine]
        return Launch(samples_ns=(ns,) * 5, wall_ns=ns, load_ns=1, first_inference_ns=1)


@pytest.fixture(scope="module")
def two_engines(
    repository: tuple[Path, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Settings, BaseEngine, BaseEngine, Path]:
    root, commits = repository
    settings = dataclasses.replace(settings_of(root), confirm_budget=8)
    bench = StepContext(settings, CASE, lambda _: None)
    engines = []
    for number in (1, RESEEDED):
        place = tmp_path_factory.mktemp("places") / str(number)
        subprocess.run(["git", "clone", "-q", root, place], check=True, timeout=60)
        git(place, "checkout", "-q", commits[number])
        engines.append(bench.engine(place, Commit(sha=commits[number])))
    return settings, engines[0], engines[1], place


@pytest.mark.parametrize(
    ("ratio", "code", "verdict", "launches"),
    [
        (1.0, 0, Verdict.PASS, 4),
        (6.0, 1, Verdict.REGRESSION, 4),
        # Half way between ignore and catch no number of launches decides: both trials are spent.
        (math.sqrt(1.5 * 2.5), SKIP, Verdict.INCONCLUSIVE, 32),
    ],
)
def test_the_exit_code_is_what_git_is_to_know(
    two_engines: tuple[Settings, BaseEngine, BaseEngine, Path],
    ratio: float,
    code: int,
    verdict: Verdict,
    launches: int,
) -> None:
    settings, good, head, place = two_engines
    assert isinstance(good.job.target, EngineTarget)
    assert isinstance(head.job.target, EngineTarget)
    seam = GivenLaunches()
    seam.medians_ns = {good.job.target.engine: 1_000_000, head.job.target.engine: round(1_000_000 * ratio)}
    task = Task(settings=settings, case_id=CASE, root=str(place), good=good)
    bench = StepContext(settings, CASE, lambda _: None, one=seam)
    found, finding = step(task, bench)
    assert (found, finding.verdict) == (code, verdict)
    assert seam.taken >= launches

    before = seam.taken
    again, second = step(remembered(task, finding), bench)
    assert again == code
    if code != SKIP:
        assert second.note == "an engine seen before"
        assert seam.taken == before


def test_a_result_with_skips_names_the_candidates() -> None:
    commits = tuple(Commit(sha=str(n) * 40) for n in range(3))
    found = Bisection(
        good=commits[0], bad=commits[2], ends=Finding(commit=commits[2]), candidates=commits[1:]
    )
    assert not found.sure
    assert "1" * 12 in bisection_text(found)
    assert json.dumps(bisection_text(found)).isascii()
