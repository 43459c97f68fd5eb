"""Many small losses, each promoted with a good reason, are seen against the release."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from repository import Repository

pytest_plugins = ["cli_project", "repository"]


def test_promoted_losses_are_seen_against_the_release(repository: Repository) -> None:
    done = repository("anchor", "v1.0")
    assert done.returncode == 0, done.stderr
    assert "perfgate run --release v1.0" in done.stdout
    repository.commit("v1.0")
    repository.git("tag", "v1.0")
    release = repository.git("rev-parse", "HEAD")
    repository.slow_down()
    repository.commit("slower, accepted")
    repository("run", *repository.WIDE)
    accepted = repository(
        "promote", repository.results, "--reason", "meant", "--accept", repository.CASE, "--allow-dirty"
    )
    assert accepted.returncode == 0, accepted.stderr
    repository.commit("promoted")
    assert repository("run").returncode == 0
    assert repository.verdicts()[repository.CASE] == "UNCHANGED"
    done = repository("run", "--anchor", "v1.0", *repository.WIDE)
    assert done.returncode == 1, done.stdout
    result = json.loads(repository.results.read_text())
    judgement = next(one["judgement"] for one in result["cases"] if one["case"]["id"] == repository.CASE)
    assert judgement["verdict"] == "REGRESSION"
    assert judgement["confirmation"]["base_commit"] == release


def test_an_anchor_is_not_overwritten_by_accident_and_is_found_by_name(repository: Repository) -> None:
    shutil.rmtree(repository.root / "models")
    assert repository("anchor", "v1.0").returncode == 0
    again = repository("anchor", "v1.0")
    assert again.returncode == 2
    assert "is there already" in again.stderr
    assert repository("anchor", "v1.0", "--replace").returncode == 0
    for wrong in ("../outside", ".hidden", "-x/y"):
        assert repository("anchor", "--", wrong).returncode == 2
    (repository.root / "models").mkdir()
    missing = repository("run", "--anchor", "v2.0")
    assert missing.returncode == 2
    assert "one of: v1.0" in missing.stderr
