"""`perfgate run` and the gate: exit codes, and that an unchanged tree costs nothing."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

if TYPE_CHECKING:
    from cli_project import Cli

pytest_plugins = ["cli_project"]

LONG = ("run", "--remeasure", "--launches", "40", "--duration-ms", "300")


def test_a_slower_model_exits_1_and_names_the_case_and_without_the_change_exits_0(cli: Cli) -> None:
    assert cli("run").returncode == 0
    cli.slow_down()
    done = cli("run")
    assert done.returncode == 1
    assert "REGRESSION  tinyconv/fp32/b1" in done.stdout
    assert cli.verdicts()["tinyconv/fp32/b1"] == "REGRESSION"
    result = json.loads(cli.results.read_text())
    case = next(one for one in result["cases"] if one["case"]["id"] == "tinyconv/fp32/b1")
    assert case["judgement"]["ratio"]["estimate"] > 3
    assert len(case["outcome"]["screen"]) == 3, "a suspect is confirmed with launches of its own"
    # And if it is meant, it is promoted only when it is named.
    refused = cli("promote", cli.results, "--reason", "deeper")
    assert refused.returncode == 2
    assert "tinyconv/fp32/b1 is REGRESSION" in refused.stderr
    accepted = cli("promote", cli.results, "--reason", "deeper", "--accept", "tinyconv/fp32/b1")
    assert accepted.returncode == 0
    assert cli("run").returncode == 0
    assert cli.verdicts()["tinyconv/fp32/b1"] == "UNCHANGED"


def test_an_unchanged_tree_makes_no_model_and_no_engine(cli: Cli) -> None:
    started = time.monotonic()
    done = cli("run")
    assert done.returncode == 0
    assert time.monotonic() - started < 10
    assert cli.verdicts() == {"tinyconv/fp32/b1": "UNCHANGED", "tinyconv/fp16/b1": "NOT RUN"}
    assert not (cli.root / ".perfgate").exists()


def test_remeasure_measures_an_unchanged_tree(cli: Cli) -> None:
    # Two busy cores vary up to 1.9 times: what is to agree is judged with wide tolerances.
    done = cli("run", "--remeasure", "--ignore", "1.0", "--catch", "3.0")
    assert done.returncode == 0
    assert cli.verdicts()["tinyconv/fp32/b1"] in ("PASS", "IMPROVEMENT")
    assert "[3/3, 0 s left]" in done.stderr


def test_a_promise_under_load_is_judged_by_simulation_and_a_broken_one_exits_1(cli: Cli) -> None:
    spec = cli.root / "models/tinyconv.toml"
    spec.write_text(spec.read_text() + "\n[slo]\nservice_p99_ms = 0.000001\nservice_qps = 1\n")
    done = cli("run", "--remeasure", "--ignore", "1.0", "--catch", "3.0")
    assert done.returncode == 1
    assert "simulated p99 with queueing at 1 queries/s" in done.stdout
    unchanged = cli("run")
    assert unchanged.returncode == 0
    table = json.loads(cli.results.read_text())
    assert "service_p99_ms not judged" in table["cases"][0]["judgement"]["reason"]


def test_a_new_case_that_breaks_its_promise_is_red_with_its_results_written(cli: Cli) -> None:
    cli.add_model("second")
    spec = cli.root / "models/second.toml"
    spec.write_text(spec.read_text() + "\n[slo]\nservice_p99_ms = 0.000001\nservice_qps = 1\n")
    cli.change("pyproject.toml", "explain = false", "explain = true")
    done = cli("run", "-k", "second", "--launches", "1")
    assert done.returncode == 1
    assert "not explained: no baseline is stored for it" in done.stderr
    assert cli.verdicts()["second/fp32/b1"] == "REGRESSION"


def test_another_machine_is_incomparable_and_exits_3(cli: Cli) -> None:
    cli.edit_baseline(lambda table: [one["key"].update(cpus="999") for one in table["environments"].values()])
    done = cli("run", "--launches", "1")
    assert done.returncode == 3
    assert cli.verdicts()["tinyconv/fp32/b1"] == "INCOMPARABLE"


def test_a_required_baseline_makes_a_new_case_fail(cli: Cli) -> None:
    cli.add_model("second")
    assert cli("run", "--launches", "1", "-k", "second").returncode == 0
    done = cli("run", "--launches", "1", "-k", "second", "--require-baseline")
    assert done.returncode == 1
    assert cli.verdicts()["second/fp32/b1"] == "NEW"


@pytest.mark.parametrize("args", [(), ("models",), ("-k", "fp32")], ids=["all", "folder", "keyword"])
def test_a_case_that_is_no_longer_made_is_missing(cli: Cli, args: tuple[str, ...]) -> None:
    (cli.root / "models/tinyconv.toml").unlink()
    assert cli("run", *args).returncode == 1
    assert cli.verdicts() == {"tinyconv/fp32/b1": "MISSING"}


@pytest.mark.parametrize("args", [(), ("-k", "fp32/b1")], ids=["all", "keyword"])
def test_a_dimension_that_the_graph_lacks_is_said_and_no_removal_advised(
    cli: Cli, args: tuple[str, ...]
) -> None:
    cli.change("models/tinyconv.toml", "[dims.b]", "[dims.m]")
    done = cli("run", *args)
    assert done.returncode == 2
    assert "the ONNX graph has no dynamic dimension 'm' (it has: b)" in done.stderr
    assert "promote" not in done.stdout + done.stderr


def test_a_case_that_its_spec_no_longer_lists_is_missing_with_a_keyword(cli: Cli) -> None:
    cli.change("models/tinyconv.toml", "measure = [1]", "measure = [2]")
    done = cli("run", "-k", "fp32/b1")
    assert done.returncode == 1
    assert cli.verdicts() == {"tinyconv/fp32/b1": "MISSING"}
    assert "if it was removed on purpose: perfgate promote" in done.stdout.replace("\n", " ")


def test_a_named_spec_is_the_whole_scope(cli: Cli) -> None:
    cli.add_model("second")
    (cli.root / "models/tinyconv.toml").unlink()
    assert cli("run", "models/second.toml", "--launches", "1").returncode == 0
    assert cli.verdicts() == {"second/fp32/b1": "NEW", "second/fp16/b1": "NOT RUN"}


def test_a_keyword_that_selects_nothing_is_a_usage_error(cli: Cli) -> None:
    done = cli("run", "-k", "no_such_case")
    assert done.returncode == 2
    assert "selects no case: 'no_such_case'" in done.stderr


def test_a_run_where_nothing_runs_is_not_green(cli: Cli) -> None:
    done = cli("run", "-k", "fp16")
    assert done.returncode == 1
    assert "Nothing was measured" in done.stdout


@pytest.mark.parametrize(
    ("path", "text", "said"),
    [
        ("models/tinyconv.toml", "name = ", "is not valid TOML"),
        ("models/tinyconv.toml", 'schema = "perfgate-trt/model/v1"\nfrob = 1', "unknown key"),
        ("pyproject.toml", "[tool.perfgate]\nlaunches = 'many'", "Expected `int"),
        ("pyproject.toml", "[tool", "is not valid TOML"),
    ],
)
def test_a_mistake_in_a_file_is_one_clear_line(cli: Cli, path: str, text: str, said: str) -> None:
    (cli.root / path).write_text(text)
    done = cli("run")
    assert done.returncode == 2
    assert said in done.stderr
    assert path in done.stderr


def test_an_output_folder_under_a_file_is_one_clear_line(cli: Cli) -> None:
    (cli.root / "taken").write_text("a file")
    done = cli("run", "--out", "taken/out")
    assert done.returncode == 2
    assert "taken/out: cannot be written" in done.stderr
    assert "fix: choose a writable folder with --out" in done.stderr
    assert (cli.root / "taken").read_text() == "a file"


def test_a_store_under_a_file_is_told_by_its_own_setting(cli: Cli) -> None:
    (cli.root / ".perfgate").write_text("a file")
    done = cli("run", "--remeasure")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
    assert "fix: choose a writable folder with the setting store: PERFGATE_STORE" in done.stderr


def test_a_full_disk_is_the_machines_fault_and_leaves_no_half_file(cli: Cli) -> None:
    disk = cli.root / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)]
    try:
        mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        mounted = False
    if not mounted:
        pytest.skip("a full disk needs the right to mount a tmpfs")
    try:
        (disk / "filler").write_bytes(bytes(64 << 10))
        done = cli("run", "--out", "disk/out")
        left = sorted(path.name for path in disk.rglob("*") if path.is_file())
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 3
    assert "no space left on the device" in done.stderr
    assert left == ["filler"]


def test_a_device_in_use_is_the_machines_fault(cli: Cli) -> None:
    holder = cli.start(*LONG)
    try:
        _wait_for_launches(cli, holder, 1)
        cli.change("pyproject.toml", "launches = 3", "launches = 3\nlock_timeout_s = 1")
        done = cli("run", "--remeasure")
    finally:
        holder.send_signal(signal.SIGINT)
        holder.wait()
    assert done.returncode == 3
    assert f"held by pid {holder.pid}" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_exits_3_leaves_no_child_and_keeps_what_was_measured(
    cli: Cli, number: signal.Signals
) -> None:
    cli.add_model("second")
    cli.results.unlink()
    process = cli.start(*LONG)
    # In the first round, so that the other case has no launch yet.
    _wait_for_launches(cli, process, 1)
    process.send_signal(number)
    assert process.wait(30) == 3
    _wait_until_alone(cli)
    said = cli.log.read_text()
    assert "Traceback" not in said
    assert said.count("press Ctrl-C again to stop at once") == (number == signal.SIGINT)
    result = json.loads(cli.results.read_text())
    assert result["summary"]["exit_code"] == 3
    measured = [one for one in result["cases"] if one["outcome"]["type"] == "measured"]
    assert len(measured) in (1, 2)
    assert set(cli.verdicts().values()) == {"INVALID", "NOT RUN"}
    assert cli("report", cli.results).returncode == 0
    assert cli("run", "-k", "fp32", "--launches", "1").returncode == 0, "the device is free again"


def test_an_interrupted_confirmation_keeps_the_first_launches(cli: Cli) -> None:
    cli.slow_down()
    process = cli.start("run", "--duration-ms", "1000", "--launches", "2")
    _wait_for(cli, process, "measuring again")
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 3
    assert cli.verdicts()["tinyconv/fp32/b1"] == "INVALID"
    result = json.loads(cli.results.read_text())
    outcome = next(one for one in result["cases"] if "fp32" in one["case"]["id"])["outcome"]
    assert len(outcome["launches"]) == 2


def _interrupted_beside(cli: Cli, text: str) -> dict[str, Any]:
    """tinyconv and a second model `wide` are run until `text` is said; the cases of what is then written."""
    cli.results.unlink()
    process = cli.start("run", "--remeasure")
    _wait_for(cli, process, text)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 3, cli.log.read_text()
    _wait_until_alone(cli)
    assert "Traceback" not in cli.log.read_text()
    result = json.loads(cli.results.read_text())
    assert result["summary"]["exit_code"] == 3
    cases = {one["case"]["id"]: one for one in result["cases"]}
    for name in ("tinyconv/fp32/b1", "wide/fp32/b1"):
        assert cases[name]["outcome"]["stage"] == "interrupted"
        assert cases[name]["judgement"]["verdict"] == "INVALID"
    return cases


def test_an_interrupt_while_answers_are_checked_keeps_those_that_were_found(cli: Cli) -> None:
    cli.add_model("wide")
    with (cli.root / "models/wide.toml").open("a") as spec:
        spec.write('\n[accuracy]\nmetric = "slow.py"\n')
    blocked = "import signal\ndef score(inputs, outputs):\n    signal.pause()\n"
    (cli.root / "models/slow.py").write_text(blocked)
    cases = _interrupted_beside(cli, "wide/fp32/b1: checking the answers")
    assert cases["tinyconv/fp32/b1"]["accuracy"]["outputs"]
    assert "accuracy" not in cases["wide/fp32/b1"]


def test_an_interrupt_while_engines_are_built_keeps_what_was_prepared(cli: Cli) -> None:
    cli.add_model("wide")
    cli.change("models/wide.toml", "seed = 0", "seed = 0\nargs = { repeat = 2 }")
    assert cli("run", "-k", "wide", "--launches", "1").returncode == 0
    (home,) = (path.parent for path in (cli.root / ".perfgate/engines").glob("*/facts.json"))
    with FileLock(home / "lock"):  # as another run of this very recipe would hold it
        cases = _interrupted_beside(cli, "wide/fp32/b1: building the engine")
    assert all(cases[name]["case_digest"] for name in ("tinyconv/fp32/b1", "wide/fp32/b1"))


def test_an_interrupt_while_models_are_made_names_every_case(cli: Cli) -> None:
    cli.add_model("wide")
    cli.change("models/wide.toml", 'script = "tinyconv.py"', 'script = "slow.py"')
    (cli.root / "models/slow.py").write_text("import signal\ndef write_onnx(path, seed): signal.pause()\n")
    cases = _interrupted_beside(cli, "wide: preparing the ONNX file")
    assert cases["tinyconv/fp32/b1"]["case_digest"]
    assert "case_digest" not in cases["wide/fp32/b1"]


def test_a_killed_run_leaves_a_readable_checkpoint_and_no_child(cli: Cli) -> None:
    cli.results.unlink()
    code = (
        "import perfgate.run.outputs as o; o._CHECKPOINT_S = 0.0; from perfgate.cli.app import main; main()"
    )
    process = cli.start(*LONG, code=code)
    _wait_for_launches(cli, process, 2)
    process.kill()
    assert process.wait(30) == -signal.SIGKILL
    _wait_until_alone(cli)
    assert len(json.loads(cli.results.read_text())["cases"][0]["outcome"]["launches"]) >= 1
    assert cli("report", cli.results).returncode == 0
    assert cli("run").returncode == 0, "the device is free again"


def _wait_for_launches(cli: Cli, process: subprocess.Popen[bytes], count: int) -> None:
    _wait_for(cli, process, f"[{count}/")


def _wait_for(cli: Cli, process: subprocess.Popen[bytes], text: str) -> None:
    deadline = time.monotonic() + 60
    while text not in cli.log.read_text():
        assert process.poll() is None, cli.log.read_text()
        assert time.monotonic() < deadline, cli.log.read_text()
        time.sleep(0.01)


def _wait_until_alone(cli: Cli) -> None:
    deadline = time.monotonic() + 10
    while cli.descendants:
        assert time.monotonic() < deadline, f"still there: {cli.descendants}"
        time.sleep(0.01)


def test_throughput_says_the_best_number_of_streams(cli: Cli) -> None:
    done = cli("throughput", "tinyconv/fp32/b1", "--most", "1", "--launches", "1")
    assert done.returncode == 0, done.stderr
    assert "best: 1 streams" in done.stdout


def test_a_backend_without_streams_refuses_to_spread(cli: Cli) -> None:
    done = cli("throughput", "tinyconv/fp32/b1", "--most", "2")
    assert done.returncode == 2
    assert "--most 1" in done.stderr


def test_a_cpus_clocks_are_not_locked(cli: Cli) -> None:
    done = cli("run", "--remeasure", "--lock-clocks", "1200")
    assert done.returncode == 2
    assert "a CPU's clocks cannot be locked" in done.stderr
