"""`perfgate alert` as it is called: what it sends, remembers, prints, and exits with."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from publish_runs import Answer, chat, result, run
from publish_servers import perfgate

from perfgate.records import BASELINE_SCHEMA, Baseline, BaselineCase, Environment, Verdict
from perfgate.util.files import record_json

TOKEN, SECRET = "T0PS3CRETTOKEN", "SECverysecretsecret"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    path = tmp_path / "results.json"
    write(path, Verdict.REGRESSION, 1.08)
    return path


def write(path: Path, verdict: Verdict, ratio: float | None = None, device: str = "nvidia-h200") -> None:
    created = f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    where = Environment(device=device, toolchain="t", key={})
    path.write_text(record_json(run(result("a/fp16", verdict, ratio), created=created, environment=where)))


def test_nobody_to_tell_is_a_usage_error_and_a_dry_run_prints(results: Path, tmp_path: Path) -> None:
    done = perfgate("alert", results)
    assert done.returncode == 2
    assert "no destination is configured" in done.stderr
    done = perfgate("alert", results, "--dry-run", "--state", tmp_path / "state.json")
    assert done.returncode == 0
    assert "[alarm] perfgate: 1 case slower than allowed on nvidia-h200" in done.stdout
    assert not (tmp_path / "state.json").exists()


def test_told_once_and_the_recovery_too(results: Path, tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with chat(Answer()) as service:
        env = {"PERFGATE_WEBHOOK_TEAM": f"json {service.url}/{TOKEN}", "PERFGATE_WEBHOOK_TEAM_SECRET": SECRET}
        outputs = [perfgate("alert", results, "--state", state, **env) for _ in range(2)]
        assert "nothing new" in outputs[1].stdout
        # Another GPU's good night closes nothing.
        write(results, Verdict.PASS, device="nvidia-a100")
        outputs.append(perfgate("alert", results, "--state", state, **env))
        write(results, Verdict.PASS)
        outputs += [perfgate("alert", results, "--state", state, **env) for _ in range(2)]
    assert [json.loads(body)["kind"] for body in service.bodies] == ["regression", "recovery"]
    assert [done.returncode for done in outputs] == [0] * 5
    shown = "".join(done.stdout + done.stderr for done in outputs) + state.read_text()
    assert TOKEN not in shown
    assert SECRET not in shown


def test_a_destination_that_was_down_is_told_later_and_the_other_not_again(
    results: Path, tmp_path: Path
) -> None:
    state = tmp_path / "state.json"
    with chat(Answer()) as up, chat(Answer(400), Answer()) as down:
        env = {
            "PERFGATE_WEBHOOK_UP": f"slack {up.url}/{TOKEN}",
            "PERFGATE_WEBHOOK_DOWN": f"json {down.url}/x",
        }
        first = perfgate("alert", results, "--state", state, **env)
        second = perfgate("alert", results, "--state", state, **env)
    assert first.returncode == 3
    assert "down (json, 127.0.0.1): the regression alert was not delivered: HTTP 400" in first.stderr
    assert second.returncode == 0
    assert (len(up.bodies), len(down.bodies)) == (1, 2)
    assert TOKEN not in first.stdout + first.stderr


def test_missing_results_are_a_missed_night(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    with chat(Answer()) as service:
        env = {"PERFGATE_WEBHOOK_TEAM": f"json {service.url}/x"}
        for _ in range(2):
            done = perfgate("alert", tmp_path / "none.json", "--state", state, **env)
            assert done.returncode == 0
        write(tmp_path / "none.json", Verdict.PASS)
        perfgate("alert", tmp_path / "none.json", "--state", state, **env)
    assert [json.loads(body)["kind"] for body in service.bodies] == ["missed-night"]
    assert json.loads(state.read_text()) == {"schema": "perfgate-trt/alert-state/v1"}


def test_an_old_run_and_an_old_baseline(results: Path, tmp_path: Path) -> None:
    old = datetime.now(timezone.utc) - timedelta(days=100)
    case = BaselineCase(
        case_digest="a" * 64, environment="e", metrics={}, promoted=f"{old:%Y-%m-%dT%H:%M:%SZ}", reason="r"
    )
    where = Environment(device="nvidia-h200", toolchain="t", key={})
    baseline = Baseline(schema=BASELINE_SCHEMA, model="a", environments={"e": where}, cases={"a/fp16": case})
    folder = tmp_path / "baselines/nvidia-h200/t"
    folder.mkdir(parents=True)
    (folder / "a.json").write_text(record_json(baseline))
    arguments = ("--dry-run", "--max-age-hours", "0.000001", "--baselines", tmp_path / "baselines")
    done = perfgate("alert", results, *arguments)
    assert "a night was missed" in done.stdout
    assert "a/fp16: promoted 100 days ago" in done.stdout


@pytest.mark.parametrize("text", ["", "{}", '{"schema": "perfgate-trt/alert-state/v1", "x": 1}'])
def test_a_damaged_state_or_result_is_an_error(results: Path, tmp_path: Path, text: str) -> None:
    state = tmp_path / "state.json"
    state.write_text(text)
    done = perfgate("alert", results, "--dry-run", "--state", state)
    assert done.returncode == 2
    assert "state.json" in done.stderr
    results.write_text(text)
    assert perfgate("alert", results, "--dry-run").returncode == 2
