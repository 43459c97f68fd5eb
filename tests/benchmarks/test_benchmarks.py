"""The benchmark scripts: their arithmetic on made-up data, their help, and one whole run on the CPU."""

from __future__ import annotations

import argparse
import json
import math
import random
import subprocess
import sys
import types
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apart
import apart_child
import common
import identity
import levels
import overhead
import overhead_child
import precision_gpu
import pytest
import second_run

from perfgate.engine.tensorrt.inspect import Layer, Layers, pack_layers
from perfgate.model.cases import expand
from perfgate.model.read import read_spec
from perfgate.records import EngineFacts, Mode
from perfgate.settings import Settings
from perfgate.util.process import package_environment

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("levels", "overhead", "apart", "identity", "second_run", "open_loop", "explain_gpu")


def draw_tree(counts: tuple[int, ...], spreads: tuple[float, ...], seed: int) -> Any:
    """Nested log medians, highest level first: each level adds a normal offset of its own."""
    draw = random.Random(seed)

    def grow(level: int, value: float) -> Any:
        if level == len(counts):
            return value
        return [grow(level + 1, value + draw.gauss(0, spreads[level])) for _ in range(counts[level])]

    return grow(0, 13.0)


def by_level(tree: Any, *, sample_variance: float = 0.0, samples: int = 300) -> dict[str, Any]:
    found = levels.components(tree, sample_variance=sample_variance, samples=samples)
    return {one.level: one for one in found}


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


def test_components_are_recovered() -> None:
    # Host, build, process, load: many of each, so that the estimates are close.
    spreads = (0.01, 0.04, 0.02, 0.005)
    found = by_level(draw_tree((40, 12, 8, 6), spreads, seed=1))
    for level, spread in zip(("host", "build", "process", "load"), spreads, strict=True):
        assert math.sqrt(found[level].variance) == pytest.approx(spread, rel=0.3), level
    assert found["load"].dof == 40 * 12 * 8 * 5
    assert found["host"].dof == 39


def test_components_by_hand() -> None:
    # Two processes of two loads: loads vary by 2 in each, process means are 1 and 5.
    found = by_level([[[0.0, 2.0], [4.0, 6.0]]])
    assert found["load"].variance == pytest.approx(2.0)
    assert found["process"].variance == pytest.approx(8.0 - 2.0 / 2)
    assert found["build"].variance is None
    assert found["build"].dof == 0


def test_a_level_that_adds_nothing_is_nothing() -> None:
    # The process means differ by less than two loads explain.
    found = by_level([[[0.0, 2.0], [0.1, 2.1]]])
    assert found["process"].variance == 0.0


def test_the_median_s_own_noise_is_not_the_load_s() -> None:
    tree = [[[0.0, 2.0], [4.0, 6.0]]]
    noise = math.pi / 2 * 3.0 / 10
    found = by_level(tree, sample_variance=3.0, samples=10)
    assert found["load"].variance == pytest.approx(2.0 - noise)
    assert found["process"].variance == pytest.approx(7.0)


def test_a_lost_process_is_borne() -> None:
    found = by_level([[[0.0, 2.0], [4.0, 6.0]], [[1.0, 3.0]]])
    assert found["load"].dof == 3
    assert found["process"].dof == 1
    assert found["build"].dof == 1


def component(level: str, variance: float | None) -> levels.Component:
    return levels.Component(level=level, variance=variance, repeats=2, dof=1)


def test_repetitions_follow_kalibera_and_jones() -> None:
    found = [component("sample", 4.0), component("load", 1.0), component("process", 0.01)]
    # sqrt(10 / 0.1 * 4 / 1) = 20 and sqrt(40 / 10 * 1 / 0.01) = 20.
    costs = {"sample": 0.1, "load": 10.0, "process": 40.0}
    assert levels.repetitions(found, costs) == {"sample": 20, "load": 20}


def test_repetitions_are_at_least_one_and_none_where_unknown() -> None:
    found = [component("sample", 0.0), component("load", 1.0), component("process", 0.0)]
    found += [component("build", None)]
    costs = {"sample": 1.0, "load": 1.0, "process": 1.0, "build": 1.0}
    assert levels.repetitions(found, costs) == {"sample": 1, "load": None, "process": None}


def test_the_robust_variance_ignores_the_tail() -> None:
    draw = random.Random(2)
    values = [draw.gauss(0, 0.01) for _ in range(4000)] + [1.0] * 40
    assert math.sqrt(levels.robust_variance(values)) == pytest.approx(0.01, rel=0.1)


def file_of(tree: Any) -> dict[str, Any]:
    rows = [
        {
            "build": build,
            "process": process,
            "load": load,
            "median_ns": math.exp(value),
            "log_variance": 1e-6,
            "samples": 100,
            "invalid": "",
        }
        for build, processes in enumerate(tree)
        for process, loads in enumerate(processes)
        for load, value in enumerate(loads)
    ]
    builds = [{"digest": "0" * 64, "timing_cache": False} for _ in tree]
    costs = {"sample": 0.001, "load": 0.5, "process": 2.0, "build": 40.0}
    return {"loads": rows, "builds": builds, "costs_s": costs}


def test_merging_files_adds_the_host_level() -> None:
    trees = [draw_tree((3, 5, 3), (0.03, 0.01, 0.001), seed) for seed in (1, 2, 3)]
    one = levels.analyse([file_of(trees[0])])
    assert list(one["components"]) == ["sample", "load", "process", "build"]
    merged = levels.analyse([file_of(tree) for tree in trees])
    assert list(merged["components"]) == ["sample", "load", "process", "build", "host"]
    assert merged["components"]["host"]["dof"] == 2
    assert "host 2 build 2" in levels.show([file_of(tree) for tree in trees], merged)
    shares = [found["share"] for found in merged["components"].values() if found["share"] is not None]
    assert math.fsum(shares) == pytest.approx(1)


def test_overhead_ratios_are_of_medians_in_one_round() -> None:
    processes: list[Mapping[str, Any]] = [
        {"perfgate": (101.0, 99.0), "bare": (100.0, 100.0), "perfgate+telemetry": (102.0, 100.0)},
        {"perfgate": (100.0,), "bare": (100.0,), "perfgate+telemetry": (102.0,)},
    ]
    found = {one["ratio"]: one for one in overhead.ratios(processes)}
    assert found["perfgate / bare"]["rounds"] == pytest.approx([1.01, 0.99, 1.0])
    assert found["perfgate / bare"]["on_target"] is True
    assert found["perfgate+telemetry / perfgate"]["on_target"] is False
    assert found["perfgate+telemetry / bare"]["on_target"] is None
    assert "perfgate / bare, one at a time" not in found
    text = overhead.show({"graph+spin": {"medians_ns": processes, "ratios": overhead.ratios(processes)}})
    assert text.splitlines()[-2].endswith("NO")


class FakeDevice:
    """A stream that works off what it is given when somebody waits; an execution takes 2 ms, and the host
    takes 1 ms to enqueue one."""

    def __init__(self) -> None:
        self.handle = 7
        self.host_ms = self.device_ms = 0.0
        self.depth = self.deepest = 0
        device = self

        class Event:
            at_ms = 0.0

            def record(self, stream: object) -> None:
                device.device_ms = max(device.device_ms, device.host_ms)
                self.at_ms = device.device_ms

            def synchronize(self) -> None:
                device.host_ms = max(device.host_ms, self.at_ms)
                device.depth -= 1

            def time_since(self, other: Event) -> float:
                return self.at_ms - other.at_ms

        self.Event = Event

    def synchronize(self) -> None:
        self.depth = 0

    def execute_async_v3(self, handle: int) -> bool:
        self.host_ms += 1.0
        self.device_ms = max(self.device_ms, self.host_ms) + 2.0
        self.depth += 1
        self.deepest = max(self.deepest, self.depth)
        return True


@pytest.mark.parametrize(("loop", "depth", "median_ms"), [("_queued_loop", 2, 2.0), ("_closed_loop", 1, 3.0)])
def test_bare_loops_on_a_made_up_device(
    loop: str, depth: int, median_ms: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    device = FakeDevice()
    driver = types.SimpleNamespace(Event=device.Event)
    monkeypatch.setitem(sys.modules, "pycuda", types.SimpleNamespace(driver=driver))
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    runner = types.SimpleNamespace(_lanes=[types.SimpleNamespace(graph=None, stream=device, context=device)])
    assert getattr(overhead_child, loop)(runner, 50) == pytest.approx(median_ms * 1e6)
    assert device.deepest == depth
    assert device.depth == 0, "a query was left in flight"


def test_the_peers_loop_keeps_two_queries_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apart_child, "_WARMUP_S", 0.0)
    monkeypatch.setattr(apart_child, "_DURATION_S", 0.0)
    device = FakeDevice()
    driver = types.SimpleNamespace(Event=device.Event)
    times = apart_child._loop(driver, device, lambda: device.execute_async_v3(7))
    assert times[1:] == pytest.approx([2.0] * (len(times) - 1)) and len(times) >= 10
    assert (device.deepest, device.depth) == (2, 0)


def test_sides_that_differ_by_less_than_launches_do() -> None:
    alike = apart.compared([100.0, 101.0, 99.0], [100.2, 101.1, 99.0])
    assert alike["within_noise"] and alike["interval"][0] < 1 < alike["interval"][1]
    slower = apart.compared([102.0, 102.1, 101.9], [100.0, 100.1, 99.9])
    assert not slower["within_noise"] and slower["ratio"] == pytest.approx(1.02)
    assert slower["launch_noise"] == pytest.approx(0.00099, rel=0.02)
    shown = apart.show({"graph": {"medians_ns": {"perfgate": [1e6], "trtexec's loop": [2e6]}, **alike}})
    assert shown.splitlines()[-1].split()[:3] == ["graph", "1.0000", "2.0000"] and shown.endswith("yes")


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


def test_levels_from_end_to_end_on_a_cpu(tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    out, merged = tmp_path / "levels.json", tmp_path / "merged.json"
    sizes = ("--builds", "1", "--processes", "2", "--loads", "2", "--samples", "20", "--warmup-ms", "10")
    model = ("--model", FOLDER.parents[1] / "models/tinyconv.toml", "--precision", "fp32")
    script = (sys.executable, FOLDER / "levels.py")
    done = subprocess.run(
        [*script, *model, *sizes, "--backend", "onnxruntime", "--device", "cpu", "--out", out],
        capture_output=True,
        text=True,
        check=False,
        env={**package_environment(), "PERFGATE_LOCK_DIR": str(tmp_path)},
    )
    assert done.returncode == 0, done.stderr
    table = json.loads(out.read_text())
    assert table["schema"] == "perfgate-trt/benchmark-levels/v1"
    assert len(table["loads"]) == 4
    assert table["components"]["process"]["dof"] == 1
    assert table["date"] and table["environment"]["onnxruntime"]
    subprocess.run([*script, "--merge", out, out, "--out", merged], capture_output=True, check=True)
    assert json.loads(merged.read_text())["components"]["host"]["variance"] == 0.0
