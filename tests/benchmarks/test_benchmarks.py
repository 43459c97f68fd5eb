"""The benchmark scripts: their command lines, their arithmetic on made-up data and on recordings, one run."""

from __future__ import annotations

import argparse
import json
import math
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import common
import explain_gpu_child
import identity
import numpy as np
import precision_gpu
import pytest
import real_aa
import second_run

from perfgate.engine.tensorrt.inspect import Layer, Layers, pack_layers
from perfgate.errors import CaseError, UsageError
from perfgate.model.cases import expand
from perfgate.model.read import read_spec
from perfgate.records import EngineFacts, Mode
from perfgate.settings import Settings
from perfgate.util.process import package_environment

FOLDER = Path(__file__).resolve().parent
# The gate's scripts are in `test_gate_benchmarks.py`; the others are short, or say less in their help.
SCRIPTS = (
    "identity",
    "second_run",
    "explain_gpu",
    "change_points",
    "demo_value",
    "history_speed",
    "precision_gpu",
)
README = (FOLDER / "README.md").read_text()


def commanded(
    run: Any,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    options: list[common.Option] | None = None,
) -> int:
    monkeypatch.setattr(sys, "argv", ["folder/script.py", *arguments])
    return common.main(run, "What it is for.", options or [])


def test_a_script_gets_its_options(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[common.Options] = []
    options = [common.option("--seed", type=int, default=1), *common.device_options("a.json")]

    def run(chosen: common.Options) -> int:
        seen.append(chosen)
        return 4

    assert commanded(run, ["--device", "3", "--out", "b.json"], monkeypatch, options) == 4
    assert vars(seen[0]) == {"seed": 1, "backend": "tensorrt", "device": "3", "out": Path("b.json")}


def test_an_error_of_perfgate_is_a_message_and_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def raising(error: Exception) -> Any:
        def run(options: common.Options) -> int:
            raise error

        return run

    assert commanded(raising(UsageError("is not so")), [], monkeypatch) == 2
    assert capsys.readouterr().err.startswith("script.py: error: is not so")
    assert commanded(raising(CaseError("crashed", stderr_tail="its last words")), [], monkeypatch) == 1
    assert capsys.readouterr().err.splitlines()[-1] == "its last words"
    with pytest.raises(ZeroDivisionError):
        commanded(raising(ZeroDivisionError()), [], monkeypatch)
    with pytest.raises(SystemExit) as usage:
        commanded(raising(UsageError("")), ["--no-such-option"], monkeypatch)
    assert usage.value.code == 2


def test_a_table_is_printed_and_its_numbers_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = common.table_of("kind", lambda options: {"rows": [1]}, lambda found: f"a table of {found['rows']}")
    out = tmp_path / "out.json"
    assert commanded(run, ["--out", str(out)], monkeypatch, [common.out_option("other.json")]) == 0
    assert json.loads(out.read_text()) == {"schema": "perfgate-trt/benchmark-kind/v1", "rows": [1]}
    assert capsys.readouterr().out == "a table of [1]\n"


def test_the_readme_names_every_script_and_data_that_is_there() -> None:
    scripts = {
        path.name
        for path in FOLDER.glob("*.py")
        if "common.main(" in path.read_text() and path.name[:5] != "test_"
    }
    answered, remaining = README.split("## Scripts")
    assert set(re.findall(r"^\| `(\w+\.py)`", remaining, re.M)) == scripts - {"common.py"}
    named = re.findall(r"`(data/[\w/.-]+)`", README)
    assert len(named) >= 6 and all((FOLDER / name).is_file() for name in named)
    removed = re.findall(r"git show 6a08b45:tests/benchmarks/(\w+\.py)", answered)
    assert len(removed) == 9 and not any((FOLDER / name).exists() for name in removed)


def test_a_child_finds_the_scripts_beside_its_parent(tmp_path: Path) -> None:
    code = "import explain_gpu_child; print(explain_gpu_child.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**package_environment(), **(common.child().variables or {})},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == explain_gpu_child.__file__


def recorded(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "data" / name).read_text())
    return found


def test_recorded_sides_differ_by_less_than_launches_do() -> None:
    """perfgate's launches and trtexec's loop in processes of its own: Welch's intervals, README's figures."""
    modes = recorded("gpu/apart-h200.json")["modes"]
    for found in modes.values():
        sides = found["medians_ns"]
        theirs, ours = (np.log(sides[name]) for name in ("trtexec's loop", "perfgate"))
        again = real_aa.overall([theirs, ours])
        assert again["estimate"] == pytest.approx(found["ratio"], abs=1e-6)
        assert [again["low"], again["high"]] == pytest.approx(found["interval"], abs=1e-6)
        assert common.launch_cv(sides) == pytest.approx(found["launch_noise"])
        assert abs(math.log(again["estimate"])) < found["launch_noise"] and again["low"] < 1 < again["high"]
    assert round(modes["graph+spin"]["ratio"], 4) == 1.0014
    assert round(modes["enqueue+spin"]["ratio"], 3) == 0.997


def first_loads(file: dict[str, Any]) -> dict[str, list[float]]:
    """Medians (ns) of the launches' first loads, by build."""
    found: dict[str, list[float]] = {}
    for row in file["loads"]:
        if row["load"] == 0:
            found.setdefault(str(row["build"]), []).append(row["median_ns"])
    return found


def test_recorded_later_loads_are_slower_than_a_process_s_first() -> None:
    file = recorded("levels-h200-loads-resnet50-fp16-b8.json")
    firsts = {(row["build"], row["process"]): row["median_ns"] for row in file["loads"] if row["load"] == 0}
    later = [
        row["median_ns"] / firsts[row["build"], row["process"]] for row in file["loads"] if row["load"] > 0
    ]
    assert len(firsts) == 8 and len(later) == 16
    assert common.mean(later) == pytest.approx(1.033, abs=5e-4)
    assert 1.027 < min(later) < max(later) < 1.038
    assert common.launch_cv(first_loads(file)) == pytest.approx(0.003, abs=5e-4)


@pytest.mark.parametrize("file", sorted((FOLDER / "data").glob("levels-*.json")), ids=lambda file: file.stem)
def test_recorded_components_add_up(file: Path) -> None:
    """Shares of the levels above a sample are of one whole; what was not repeated is not known."""
    found = recorded(file.name)["components"]
    assert set(found) == {"sample", "load", "process", "build"}
    above = [one for name, one in found.items() if name != "sample"]
    assert math.fsum(one["share"] or 0 for one in above) == pytest.approx(1)
    for one in above:
        assert (one["variance"] is None) == (one["dof"] == 0)
        assert one["variance"] is None or one["cv"] == pytest.approx(math.sqrt(one["variance"]))


def test_recorded_processes_by_hand() -> None:
    """Two H200s, one load a process: what processes add is how first loads of one build differ."""
    for gpu in (5, 7):
        file = recorded(f"levels-h200-gpu{gpu}-resnet50-fp16-b8.json")
        noise = math.pi / 2 * file["components"]["sample"]["variance"] / 300
        seen = common.launch_cv(first_loads(file))
        assert seen is not None
        assert seen**2 - noise == pytest.approx(file["components"]["process"]["variance"], rel=0.01)


def test_a_step_out_of_time_is_asked_to_end_and_heard(tmp_path: Path) -> None:
    """Also where it was started in the background of a script, and so ignores Ctrl-C."""
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit('kept what there was'))\n"
        "print('ready', flush=True)\n"
        "signal.pause()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
        said = precision_gpu._stopped(process, 7)
    assert said.startswith("kept what there was") and said.endswith("stopped after 7 s")
    assert process.returncode == 1


def facts(letter: str, tactic: str = "", seconds: float = 10) -> EngineFacts:
    layers = Layers(detailed=True, layers=(Layer(name="conv", tactic=tactic),))
    return EngineFacts(
        digest=letter * 64,
        engine_bytes=1,
        build_ns=int(seconds * 1e9),
        layer_record=pack_layers(layers) if tactic else "",
    )


def test_identity_counts_equal_engines_and_equal_tactics() -> None:
    again = [facts("a", "fast", 10), facts("b", "fast", 10), facts("c", "slow", 10), facts("a", "fast", 20)]
    found = identity.summarise(facts("a", "fast", 50), again)
    assert found["equal_engines"] == 0.5
    assert found["equal_tactics"] == 0.75
    assert found["equal_rebuilds"] == pytest.approx(1 / 3), "b and c differ from the first rebuild"
    assert found["speedup"] == pytest.approx(4.0)


def test_identity_across_machines_compares_with_the_baseline() -> None:
    found = identity.summarise(None, [facts("a", "fast"), facts("b", "fast")], engine_digest="a" * 64)
    assert found["equal_engines"] == 0.5
    assert found["equal_tactics"] == 1.0
    assert found["speedup"] is None
    unknown = identity.summarise(None, [facts("a")])
    assert unknown["equal_engines"] is None
    assert unknown["equal_tactics"] is None
    rows = [{"model": "m", "precision": "fp16", "profile": "dynamic", **row} for row in (found, unknown)]
    rows.append({"model": "m", "precision": "fp32", "profile": "static", "error": "no"})
    assert identity.show(rows).endswith("not built")


def test_layers_apart_names_the_layers_with_other_tactics() -> None:
    fast, slow = (identity.tactics(facts("a", tactic)) for tactic in ("fast", "slow"))
    assert identity.layers_apart(fast, slow) == [fast[0][0]]
    assert identity.layers_apart(fast, fast) == []
    more = (*fast, ("another", *fast[0][1:]))
    assert identity.layers_apart(fast, more) == identity.layers_apart(more, fast) == ["another"]


def test_engines_apart_is_the_slowest_over_the_fastest() -> None:
    noise = [1.0, math.exp(0.02)]
    found = identity.engines_apart({"a": noise, "b": [2 * value for value in noise], "c": []})
    assert found["engines_apart"] == pytest.approx(1.0)
    assert found["launch_noise"] == pytest.approx(math.sqrt(0.02**2 / 2))
    assert identity.engines_apart({"a": [1.0]}) == {"engines_apart": None, "launch_noise": None}


def test_identity_rates_are_counted_over_files() -> None:
    def row(model: str, digests: list[str], without: float | None, wanted: str = "a") -> dict[str, Any]:
        base = {"model": model, "precision": "fp16", "profile": "dynamic"}
        return {**base, "digests": digests, "wanted": wanted, "seconds_without": without}

    found = identity.rates(
        [
            row("resnet50", ["a", "b", "b", "a"], 9.0),
            row("tinyconv", ["a", "c"], None),
            row("bert-base", ["a", "a"], 9.0),
            {"model": "bert-base", "precision": "fp32", "profile": "static", "error": "no"},
        ]
    )
    assert set(found) == {("CNN", "fp16", "dynamic"), ("transformer", "fp16", "dynamic")}
    table = identity.show_rates(found).splitlines()
    assert " ".join(table[2].split()) == "CNN fp16 dynamic 1 of 4 1 of 3 1 of 2"
    assert " ".join(table[3].split()) == "transformer fp16 dynamic 0 of 0 1 of 1 0 of 0"


@pytest.mark.parametrize(
    "file", sorted((FOLDER / "data/gpu").glob("identity-*.json")), ids=lambda file: file.stem
)
def test_recorded_identities_are_read(file: Path) -> None:
    rows = json.loads(file.read_text())["rows"]
    counts = sum(identity.rates(rows).values(), Counter())
    assert counts["left"] + counts["stored"] == sum(row["builds"] for row in rows)


def test_the_stored_cache_is_found_with_its_engine(tmp_path: Path) -> None:
    folder = tmp_path / "nvidia-h200/tensorrt-8.5.3.1"
    folder.mkdir(parents=True)
    (folder / "net.fp16.timing").write_bytes(b"cache")
    case = {"case_digest": "0" * 64, "environment": "e", "promoted": "now", "reason": "because"}
    metrics = {"latency_ns": [1]}
    cases = {
        f"net/{precision}/b{size}": {**case, "metrics": metrics, "engine_digest": letter * 64}
        for precision, size, letter in (("fp32", 1, "a"), ("fp16", 1, "b"), ("fp16", 8, "b"))
    }
    environment = {"device": "d", "toolchain": "t", "key": {}}
    table = {
        "schema": "perfgate-trt/baseline/v1",
        "model": "net",
        "environments": {"e": environment},
        "cases": cases,
    }
    (folder / "net.json").write_text(json.dumps(table))
    stored = identity.find_stored(tmp_path, "net", "fp16")
    assert stored is not None
    assert stored.engine_digest == "b" * 64
    assert identity.find_stored(tmp_path, "net", "int8") is None


def test_launch_variation_is_pooled_over_cases() -> None:
    near = [1.0, math.exp(0.02)]
    cases = {"a": near, "b": [1000.0 * value for value in near], "c": [5.0]}
    assert common.launch_cv(cases) == pytest.approx(math.sqrt(0.02**2 / 2))
    assert common.launch_cv({"c": [5.0]}) is None


def test_the_project_of_the_second_run_has_24_cases(tmp_path: Path) -> None:
    options = argparse.Namespace(
        batches=8,
        precision="fp32",
        modes=["graph+spin", "enqueue+spin", "graph+transfers+spin"],
        launches=3,
        duration_ms=300,
        backend="tensorrt",
        device="auto",
    )
    second_run.make_project(tmp_path / "project", options)
    spec = read_spec(tmp_path / "project/models/tinyconv.toml")
    cases = expand(spec, backend="tensorrt", default_mode=Mode(), tolerance=Settings().tolerance("gpu"))
    assert len({case.id for case in cases}) == 24


@pytest.mark.parametrize(
    ("share", "said"), [(0.0000749, "0.008 %"), (0.00009, "0.009 %"), (1e-9, "0.001 %"), (0.0, "0.000 %")]
)
def test_upper_bounds_are_rounded_up(share: float, said: str) -> None:
    assert common.at_most(share, 3) == said


def test_a_shape_is_read() -> None:
    assert common.parse_shape("b=8,s=128") == {"b": 8, "s": 128}
    with pytest.raises(argparse.ArgumentTypeError):
        common.parse_shape("b8")


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", "--help"], capture_output=True, text=True, check=True
    )
    assert f"python tests/benchmarks/{script}.py" in done.stdout


def test_engines_of_one_model_from_end_to_end_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out = tmp_path / "identity.json"
    sizes = ("--models", "tinyconv", "--precisions", "fp32", "--profiles", "dynamic", "--builds", "1")
    done = subprocess.run(
        [
            *(sys.executable, FOLDER / "identity.py", *sizes, "--launches", "2"),
            *("--backend", "onnxruntime", "--device", "cpu", "--out", out),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**package_environment(), "PERFGATE_LOCK_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(out.read_text())
    assert table["schema"] == "perfgate-trt/benchmark-identity/v1"
    (row,) = table["rows"]
    assert row["builds"] == 1 and len(row["digests"]) == 2
    assert set(row["medians_ns"]) == set(row["digests"])
    assert table["date"] and table["environment"]["onnxruntime"]
    assert "tinyconv fp32 dynamic" in done.stdout
