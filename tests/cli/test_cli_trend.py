import math
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from perfgate.cli.commands.report import report
from perfgate.cli.commands.site import site
from perfgate.cli.commands.trend import trend
from perfgate.errors import PerfgateError, UsageError
from perfgate.history.store import open_history
from perfgate.records import (
    BASELINE_SCHEMA,
    Baseline,
    BaselineCase,
    Case,
    CaseResult,
    Commit,
    Environment,
    Launch,
    Measured,
    Protocol,
    RunResult,
    Tolerance,
)
from perfgate.util.files import record_json

CASE = Case(
    id="tiny/fp16/b1",
    model="tiny",
    backend="b",
    precision="fp16",
    tolerance=Tolerance(ignore=0.005, catch=0.02),
)


def run(night: int, value: float, driver: str) -> RunResult:
    draw = np.random.default_rng(night)
    samples = [round(value * math.exp(draw.normal(0, 0.002))) for _ in range(3)]
    launches = tuple(
        Launch(samples_ns=(one,), wall_ns=one, load_ns=1, first_inference_ns=1) for one in samples
    )
    moment = datetime(2026, 1, 1, tzinfo=timezone.utc) + timedelta(days=night)
    return RunResult(
        schema="perfgate-trt/results/v1",
        run_id=f"run-{night}",
        created=f"{moment:%Y-%m-%dT%H:%M:%SZ}",
        perfgate="0",
        commit=Commit(sha=f"{night + 1:02x}" + "0" * 38),
        environment=Environment(device="nvidia-h200", toolchain="trt", key={"driver": driver}),
        protocol=Protocol(),
        cases=(CaseResult(case=CASE, outcome=Measured(engine=None, launches=launches)),),
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("history") / "history.sqlite"
    with open_history(str(path)) as history:
        for night in range(40):
            history.add(run(night, 100_000 * (1.04 if night >= 20 else 1), "580" if night < 30 else "590"))
    return str(path)


def test_the_trend_names_the_commits_and_the_upgrade(database: str) -> None:
    done = CliRunner().invoke(trend, ["tiny/fp16/b1", "--database", database], catch_exceptions=False)
    assert done.exit_code == 0
    assert "% slower" in done.output and "after 140000000000, up to 150000000000" in done.output
    assert "2026-01-31  environment: driver 580 to 590" in done.output
    assert "new environment" not in done.output


def test_since_leaves_out_older_nights(database: str) -> None:
    done = CliRunner().invoke(trend, ["--database", database, "--since", "2026-01-25"])
    assert "16 runs, 2026-01-25 to 2026-02-09" in done.output and "no change of level" in done.output


def test_the_site_is_written(database: str, tmp_path: Path) -> None:
    arguments = ["--out", str(tmp_path / "site"), "--database", database, "--title", "Ours"]
    done = CliRunner().invoke(site, arguments, catch_exceptions=False)
    assert done.exit_code == 0 and "wrote 5 files" in done.output
    assert "4.0 % slower" in (tmp_path / "site/index.html").read_text()


def test_promoted_runs_are_marked_in_the_trend_and_on_the_site(
    database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    promoted = run(9, 100_000, "580")
    stored = BaselineCase(
        case_digest="a" * 64,
        mode=CASE.mode,
        environment="one",
        metrics={"latency_ns": (100_000,)},
        promoted=promoted.created,
        commit=promoted.commit.sha,
        reason="a test",
    )
    baseline = Baseline(
        schema=BASELINE_SCHEMA,
        model="tiny",
        environments={"one": promoted.environment},
        cases={CASE.id: stored},
    )
    path = tmp_path / "baselines/nvidia-h200/trt/tiny.json"
    path.parent.mkdir(parents=True)
    path.write_text(record_json(baseline))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(trend, ["--database", database], catch_exceptions=False)
    assert "  promoted: 2026-01-10\n" in done.output
    CliRunner().invoke(site, ["--out", "site", "--database", database], catch_exceptions=False)
    (page,) = (tmp_path / "site").glob("tiny-fp16-b1-*.html")
    assert page.read_text().count(">promoted<") == 1
    (data,) = (tmp_path / "site").glob("tiny-fp16-b1-*.json")
    assert data.read_text().count('"promoted": true') == 1


def test_the_report_of_a_run_shows_how_its_cases_moved(database: str, tmp_path: Path) -> None:
    results = tmp_path / "results.json"
    results.write_text(record_json(run(41, 104_000, "590")), encoding="utf-8")
    flags = [str(results), "--format", "html", "--lang", "en"]
    done = CliRunner().invoke(report, [*flags, "--history", database], catch_exceptions=False)
    assert done.exit_code == 0 and "40 runs from 2026-01-01 to 2026-02-09" in done.output
    assert "4.0 % slower" in done.output and "after 140000000000, up to 150000000000" in done.output
    assert "40 runs" not in CliRunner().invoke(report, flags).output
    done = CliRunner().invoke(report, [str(results), "--history", database])
    assert isinstance(done.exception, UsageError) and "HTML" in str(done.exception)


def test_an_unknown_case_and_a_missing_history_are_told(database: str, tmp_path: Path) -> None:
    done = CliRunner().invoke(trend, ["other", "--database", database])
    assert isinstance(done.exception, UsageError) and "tiny/fp16/b1" in str(done.exception)
    done = CliRunner().invoke(trend, ["--database", str(tmp_path / "none.sqlite")])
    assert isinstance(done.exception, PerfgateError)
