"""`perfgate history` in a project, over SQLite; the commands see the database through the store alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from history_runs import case, launch, run

from perfgate.cli.commands.history import history
from perfgate.errors import DataError, PerfgateError, UsageError
from perfgate.history.store import open_history
from perfgate.records import BASELINE_SCHEMA, Baseline, BaselineCase, RunResult
from perfgate.settings import Settings
from perfgate.util.files import record_json

BENCHMARK = Path(__file__).resolve().parents[1] / "benchmarks/history_speed.py"
Perfgate = Callable[..., Result]


@pytest.fixture
def perfgate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Perfgate:
    """Runs `perfgate history` below the folder of a project; raises perfgate's errors."""
    (tmp_path / "pyproject.toml").write_text("[tool.perfgate]\n")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("PERFGATE_HISTORY", raising=False)

    def call(*args: str | Path) -> Result:
        done = CliRunner().invoke(history, [str(one) for one in args])
        if isinstance(done.exception, PerfgateError):
            raise done.exception
        return done

    return call


def results(path: Path, result: RunResult) -> Path:
    path.write_text(record_json(result))
    return path


def test_add_list_show_and_series(perfgate: Perfgate, tmp_path: Path) -> None:
    new = run(9, summary=None)
    paths = [results(tmp_path / "1.json", run(1)), results(tmp_path / "9.json", new)]
    done = perfgate("add", *paths, "--branch", "main")
    assert "run-0001: added\nrun-0009: added" in done.output
    assert "2 runs added, 0 already there" in done.output
    assert (tmp_path / Settings().history).is_file()
    done = perfgate("add", paths[0])
    assert "run-0001: already there, unchanged" in done.output
    assert "note" not in done.output
    done = perfgate("list", "--limit", "1")
    assert [text.split()[0] for text in done.output.splitlines()] == ["RUN", "run-0009"]
    done = perfgate("show", "run-0001")
    assert "commit       0000000000 on main" in done.output
    assert "verdict      PASS (exit 0)" in done.output
    assert "net/fp16/b8    PASS     1.3333  0.9900 to 1.7000  " in done.output
    assert "verdict      not judged (exit 0)" in perfgate("show", "run-0009").output
    done = perfgate("series", "net/fp16/b8", "--metric", "samples", "--since", "2026-01-02T00:05:00")
    assert done.output.splitlines()[1].split() == [
        "2026-01-02T00:09:00Z",
        "run-0009",
        "0000000000",
        "PASS",
        "20",
        "2",
    ]


def test_a_run_from_before_is_noted(perfgate: Perfgate, tmp_path: Path) -> None:
    perfgate("add", results(tmp_path / "2.json", run(2)))
    done = perfgate("add", results(tmp_path / "1.json", run(1)))
    assert "note: created 2026-01-02T00:01:00Z, before the newest run (2026-01-02T00:02:00Z)" in done.output


def test_other_content_is_refused(perfgate: Perfgate, tmp_path: Path) -> None:
    perfgate("add", results(tmp_path / "1.json", run(1)))
    with pytest.raises(DataError, match="other content") as caught:
        perfgate("add", results(tmp_path / "1.json", run(1, perfgate="0.2.0")))
    assert caught.value.exit_code == 2


def test_the_database_of_the_environment(
    perfgate: Perfgate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERFGATE_HISTORY", "here.sqlite")
    perfgate("add", results(tmp_path / "1.json", run(1)))
    assert (tmp_path / "here.sqlite").is_file()
    perfgate("add", tmp_path / "1.json", "--database", f"sqlite:///{tmp_path}/there.sqlite")
    assert (tmp_path / "there.sqlite").is_file()


def test_export_and_add_again(perfgate: Perfgate, tmp_path: Path) -> None:
    perfgate("add", results(tmp_path / "1.json", run(1)), results(tmp_path / "2.json", run(2)))
    assert "2 runs" in perfgate("export", "--all", "-o", tmp_path / "all").output
    assert "1 run\n" in perfgate("export", "run-0002", "-o", tmp_path / "one").output
    assert (tmp_path / "all").read_bytes().endswith((tmp_path / "one").read_bytes())
    assert "2 runs added" in perfgate("add", tmp_path / "all", "--database", "other.sqlite").output
    perfgate("export", "--all", "-o", tmp_path / "again", "--database", "other.sqlite")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "all").read_bytes()
    for args in ((), ("run-0001", "--all")):
        with pytest.raises(UsageError, match="needs a RUN or --all"):
            perfgate("export", *args, "-o", tmp_path / "no")


def promote(root: Path, result: RunResult) -> None:
    baseline = Baseline(
        schema=BASELINE_SCHEMA,
        model="net",
        environments={"e": result.environment},
        cases={
            "net/fp16/b8": BaselineCase(
                case_digest="ab" * 32,
                environment="e",
                metrics={"latency_ns": (1,)},
                promoted=result.created,
                commit=result.commit.sha,
                reason="first",
            )
        },
    )
    path = root / "nvidia-h200/tensorrt-10.13/net.json"
    path.parent.mkdir(parents=True)
    path.write_text(record_json(baseline))


def test_prune_says_what_it_did(perfgate: Perfgate, tmp_path: Path) -> None:
    old = {number: f"2020-01-0{number}T00:00:00Z" for number in (1, 2, 3)}
    paths = [results(tmp_path / f"{n}.json", run(n, created=created)) for n, created in old.items()]
    perfgate("add", *paths, results(tmp_path / "9.json", run(9, created="2999-01-01T00:00:00Z")), "--samples")
    promote(tmp_path / "baselines", run(2, created=old[2]))
    done = perfgate("prune", "--older-than", "30", "--keep", "run-0003", "--keep-samples")
    assert "run-0001: removed\nrun-0002: kept\nrun-0003: kept\n" in done.output
    assert "1 run removed, 2 older kept" in done.output
    done = perfgate("prune", "--older-than", "30", "--baselines", "baselines")
    assert "run-0003: removed\nrun-0002: kept, its samples removed\n" in done.output
    with pytest.raises(UsageError, match="is not a folder"):
        perfgate("prune", "--older-than", "30", "--baselines", "elsewhere")
    (tmp_path / "baselines/nvidia-h200/tensorrt-10.13/net.json").write_text("{")
    with pytest.raises(DataError, match="not a valid Baseline"):
        perfgate("prune", "--older-than", "0")
    assert len(perfgate("list").output.splitlines()) == 3


@pytest.mark.parametrize("args", [("list",), ("show", "x"), ("export", "x", "-o", "y"), ("series", "x")])
def test_nothing_is_made_by_looking(args: tuple[str, ...], perfgate: Perfgate, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no history yet"):
        perfgate(*args)
    assert not (tmp_path / ".perfgate").exists()


def test_what_is_not_there(perfgate: Perfgate, tmp_path: Path) -> None:
    perfgate("add", results(tmp_path / "1.json", run(1)))
    with pytest.raises(UsageError, match="no run 'x'"):
        perfgate("show", "x")
    with pytest.raises(UsageError, match="no run measured 'x'"):
        perfgate("series", "x")
    with pytest.raises(DataError, match="cannot be read"):
        perfgate("add", tmp_path / "none.json")


def test_foreign_text_does_not_reach_the_terminal(perfgate: Perfgate, tmp_path: Path) -> None:
    hostile: Any = run(1, case("a\x1b[31m/b", launch(1000)), run_id="r\x1b]0;title\x07", perfgate="0\x1b[2J")
    perfgate("add", results(tmp_path / "1.json", hostile), "--branch", "\x1b[1mmain")
    output = perfgate("list").output + perfgate("show", hostile.run_id).output
    assert "\x1b" not in output
    assert "a/b" in output


def test_the_benchmark_runs(tmp_path: Path) -> None:
    sizes = ("--nights", "3", "--cases", "4", "--launches", "2", "--samples", "5", "--repeats", "1")
    done = subprocess.run(
        [sys.executable, BENCHMARK, *sizes, "--out", tmp_path / "out.json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "24 launches" in done.stdout
    assert (tmp_path / "out.json").is_file()


def test_the_store_is_not_imported_to_show_help() -> None:
    code = "import sys, perfgate.cli.commands.history; print('sqlalchemy' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_an_open_history_needs_no_alembic(tmp_path: Path) -> None:
    address = str(tmp_path / "h.sqlite")
    open_history(address).close()
    code = (
        "import sys\nfrom perfgate.history.store import open_history\n"
        "open_history(sys.argv[1]).close()\nprint('alembic' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
