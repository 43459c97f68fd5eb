"""The gate's benchmark scripts: their models and rules on made-up data, their help, and their tables."""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import cost
import false_alarms
import gate_model
import numpy as np
import peers
import peers_rules
import power
import pytest
import real_aa
import recordings

FOLDER = Path(__file__).resolve().parent
SCRIPTS = ("false_alarms", "power", "cost", "peers", "real_aa")


def recording(seed: int, *, host: float = 0.0, slow_build: float = 0.0, gap: float = 0.02) -> dict[str, Any]:
    """A file of loads: two builds, of which the second may be slower; loads beyond the first are far off, as
    they were on an H100, and are no launches of a gate."""
    draw = np.random.default_rng(seed)
    rows = [
        {
            "build": build,
            "process": process,
            "load": load,
            "invalid": "",
            "median_ns": 1e6
            * math.exp(
                host
                + build * slow_build
                + (draw.random() < 0.4) * gap
                + draw.normal(0, 0.001)
                + (0.04 if load else 0)
            ),
        }
        for build in range(2)
        for process in range(40)
        for load in range(2)
    ]
    return {
        "schema": "perfgate-trt/benchmark-levels/v1",
        "builds": [{"digest": f"engine {build}"} for build in range(2)],
        "loads": rows,
        "costs_s": {"process": 2.0, "load": 0.5, "sample": 0.001, "build": 50.0},
    }


def test_a_model_is_recovered_from_recordings_of_three_hosts() -> None:
    hosts = (0.0, 0.03, -0.03, 0.01, -0.01)
    files = [
        recording(seed, host=host, slow_build=0.16 if seed == 2 else 0.001) for seed, host in enumerate(hosts)
    ]
    model = gate_model.fit(files)
    assert model.gap == pytest.approx(0.02, rel=0.1)
    assert model.slow == pytest.approx(0.4, abs=0.1)
    # A little wider than it is: builds are centred by means in which the clusters' shares differ.
    assert 0.0009 < model.within < 0.0022
    assert model.host == pytest.approx(float(np.std(hosts, ddof=1)), rel=0.15)
    assert model.lottery == pytest.approx(0.2)
    assert model.lottery_slowdown == pytest.approx(math.expm1(0.16), rel=0.1)
    assert model.launch_s == pytest.approx(3.0)
    assert "400 on 5 GPUs" in model.source


def test_machines_are_compared_within_one_kind_and_days_within_one_machine() -> None:
    files = []
    for seed, (kind, gpu, centre) in enumerate(
        [
            ("h200", "a", 0.0),
            ("h200", "a", 0.01),
            ("h200", "b", 0.04),
            ("h200", "b", 0.05),
            ("h100", "c", 3.0),
            ("h100", "d", 3.02),
        ]
    ):
        file = recording(seed, host=centre, gap=0.0)
        files.append({**file, "device": kind, "case": "net", "environment": {"uuid": gpu}})
    model = gate_model.fit(files)
    assert model.day == pytest.approx(0.01 / math.sqrt(2), rel=0.15)
    assert model.host == pytest.approx(math.sqrt((0.04**2 / 2 + 0.02**2 / 2) / 2), rel=0.1)


def test_gpus_of_one_host_are_one_machine_and_engines_that_they_share_are_drawn_once() -> None:
    files = [
        {
            **recording(seed, host=centre, slow_build=step, gap=0.0),
            **{"device": "h100", "case": "net", "environment": {"uuid": f"gpu {seed}"}},
            **{"date": f"2026-01-0{day}T00:00:00Z", "machine": machine},
        }
        for seed, (machine, day, centre, step) in enumerate(
            [
                ("one", 1, 0.00, 0.010),
                ("one", 1, 0.02, 0.012),
                ("two", 1, 0.05, 0.020),
                ("three", 2, 0.03, 0.000),
            ]
        )
    ]
    model = gate_model.fit([*files, recording(9, slow_build=0.016, gap=0.0)])
    assert "builds: 4 beside" in model.source, "the GPUs of machine one took the same two engines"
    steps = (0.011, 0.020, 0.000, 0.016)
    assert model.build == pytest.approx(math.sqrt(sum(step**2 / 2 for step in steps) / 4), rel=0.1)
    assert "machines: 4" in model.source
    # Three machines 0.02 apart; GPUs of one 0.014 apart, of whose variance an eighth is not in that yet.
    assert model.host == pytest.approx(math.hypot(0.02, 0.0141 / math.sqrt(8)), rel=0.1)


def test_a_gpu_lies_as_far_from_its_kind_as_its_machine_and_itself_together() -> None:
    draw = np.random.default_rng(1)
    hosts = draw.normal(0, 0.01, 400)
    places = [[[list(host + draw.normal(0, 0.02, 4))] for host in hosts]]
    assert gate_model.host_deviation(places) == pytest.approx(math.hypot(0.01, 0.02), rel=0.1)


def test_a_gpu_is_of_one_machine_whatever_the_boot() -> None:
    files = [
        {"environment": {"uuid": uuid}, "machine": machine}
        for uuid, machine in (("a", ""), ("a", "boot 1"), ("b", "boot 1"), ("b", "boot 2"), ("c", "boot 3"))
    ]
    assert gate_model.places_of(files) == [0, 0, 0, 0, 4]


def test_without_recordings_the_model_says_what_it_rests_on() -> None:
    assert "assumed" in gate_model.fit([]).source
    assert list(gate_model.models([])) == ["as on three H200s"]
    assert gate_model.Model().launch_cv == pytest.approx(0.007, abs=5e-4)


def test_what_a_recording_cannot_tell_is_named() -> None:
    assert "not recorded: build, day, host, lottery" in gate_model.fit([recording(1)]).source


def test_one_cluster_is_not_taken_for_two() -> None:
    gap, _, width = gate_model.clusters(np.random.default_rng(1).normal(0, 0.004, 300))
    assert gap == 0
    assert width == pytest.approx(0.004, rel=0.15)


def test_gates_that_were_held_are_recordings_of_their_gpu() -> None:
    gate = {"base_ns": [1.0, 2.0], "head_ns": [3.0, 4.0], "disturbed": [], "seconds": 8.0}
    held = {
        "date": "2026-11-26T10:00:00Z",
        "device": "h200",
        "case": "net",
        "environment": {"uuid": "a"},
        "engines": {"base": {"digest": "x"}, "rebuilt": {"digest": "y"}, "plus1": {"digest": "z"}},
        "gates": [{**gate, "head_name": "rebuilt"}, {**gate, "head_name": "plus1"}],
    }
    levels = {**recording(1), "date": "2026-11-26T11:00:00Z", "device": "h200", "case": "net"}
    levels |= {"environment": {"uuid": "a"}, "builds": [{"digest": "w"}, {"digest": "y"}]}
    other = {**levels, "environment": {"uuid": "b"}}
    first, second = recordings.joined([recordings.of_gates(held), levels, other])
    assert [build["digest"] for build in first["builds"]] == ["x", "y", "w"]
    assert sum(row["build"] == 0 for row in first["loads"]) == 4, "base's launches of both gates"
    assert sum(row["build"] == 1 for row in first["loads"]) == 2 + 80, "a slower model is not counted"
    assert first["costs_s"]["process"] == pytest.approx(8 / 4 - 0.5)
    assert len(second["loads"]) == 160


def test_the_committed_recordings_are_read() -> None:
    assert all(one["loads"] for one in recordings.read())
    model = gate_model.fit(recordings.read())
    assert 0 < model.launch_cv < 0.02


def test_gates_by_bootstrap_over_hosts_raise_no_alarm() -> None:
    hosts = gate_model.residuals([recording(seed, gap=0.015) for seed in range(3)])
    found = gate_model.hold_recorded(hosts, 500, 0.0, np.random.default_rng(2))
    assert found.share(1) == 0
    slower = gate_model.hold_recorded(hosts, 500, 0.05, np.random.default_rng(2))
    assert slower.share(1) == 1


@pytest.mark.parametrize("script", SCRIPTS)
def test_help(script: str) -> None:
    done = subprocess.run(
        [sys.executable, FOLDER / f"{script}.py", "--help"], capture_output=True, text=True, check=True
    )
    assert f"python tests/benchmarks/{script}.py" in done.stdout


@pytest.mark.parametrize(("script", "gates"), [(false_alarms, 200), (power, 200), (cost, 200)])
def test_a_script_measures_and_shows(script: Any, gates: int, tmp_path: Path) -> None:
    options = argparse.Namespace(data=tmp_path, seed=3, gates=gates)
    text = script.show(script.measure(options))
    assert "as on three H200s" in text
    if script is power:
        assert "NO" not in text, "every target is met"


STEADY = [np.full(100, 1e6) * (1 + 0.001 * np.sin(np.arange(100) + shift)) for shift in range(12)]
SLOWER = [1.2 * launch for launch in STEADY]
FASTER = [launch / 1.2 for launch in STEADY]


@pytest.mark.parametrize("name", [name for name, *_ in peers.PEERS if "200 %" not in name])
def test_each_rule_calls_a_fifth_slower_and_nothing_else(name: str) -> None:
    rule = next(rule for peer, rule, *_ in peers.PEERS if peer == name)
    draw = np.random.default_rng(1)
    assert rule(STEADY, SLOWER, draw)
    assert not rule(STEADY, FASTER, draw)


def test_the_rule_with_a_threshold_of_200_percent_calls_nothing_below_it() -> None:
    draw = np.random.default_rng(1)
    assert not peers_rules.github_action_benchmark(STEADY, SLOWER, draw)
    assert peers_rules.github_action_benchmark(STEADY, [2.1 * launch for launch in STEADY], draw)


def test_bencher_has_no_limit_without_a_spread() -> None:
    assert not peers_rules.bencher(STEADY[:1], SLOWER, None)


def test_pytest_benchmark_is_run_for_real(tmp_path: Path) -> None:
    """Three cases: 10 % slower, as fast, 4 % slower; its gate of 5 % fails one of three."""
    trials = [(STEADY, [factor * launch for launch in STEADY]) for factor in (1.1, 1.0, 1.04)]
    assert peers.run_pytest_benchmark(trials, 1, tmp_path) == pytest.approx(1 / 3)


def test_pytest_benchmark_passes_where_nothing_is_slower(tmp_path: Path) -> None:
    assert peers.run_pytest_benchmark([(STEADY, STEADY)] * 2, 1, tmp_path) == 0


def recorded_gate(name: str, factor: float, count: int, seed: int) -> dict[str, Any]:
    draw = np.random.default_rng(seed)
    sides = [(centre * np.exp(draw.normal(0, 0.002, count))).tolist() for centre in (1e6, factor * 1e6)]
    return {"head_name": name, "verdict": "PASS", "base_ns": sides[0], "head_ns": sides[1], "seconds": 9.0}


def test_recorded_gates_are_judged_again() -> None:
    gates = [recorded_gate("same", 1.0, 4, seed) for seed in range(20)]
    gates += [recorded_gate("plus1", 1.03, 8, seed) for seed in range(20, 30)]
    rows = {row["head"]: row for row in real_aa.evaluate([{"kind": "gpu", "gates": gates}])}
    assert rows["same"]["counts"]["PASS"] == 20
    assert rows["same"]["red_upper"] == pytest.approx(1 - 0.05 ** (1 / 20))
    assert rows["plus1"]["counts"]["REGRESSION"] == 10
    assert rows["plus1"]["ratio"]["estimate"] == pytest.approx(1.03, abs=0.002)
    assert rows["plus1"]["resampled"]["regression"] > 0.99
    assert abs(rows["same"]["pair_correlation"]) < 0.5, "independent launches are no pairs"
    assert "plus1" in real_aa.show(list(rows.values()))


def test_a_copy_of_the_spec_has_the_extra_layers(tmp_path: Path) -> None:
    from perfgate.model.read import read_spec

    path = real_aa.spec_with(FOLDER.parents[1] / "models/resnet50.toml", 2, tmp_path)
    assert read_spec(path).source.args == {"extra_layers": 2}


def test_evaluating_files_needs_no_device(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    about = {"date": "now", "device": "d", "case": "c", "engines": {}, "kind": "gpu"}
    file.write_text(json.dumps({**about, "gates": [recorded_gate("rebuilt", 1.0, 4, 1)]}))
    script = (sys.executable, FOLDER / "real_aa.py", "--evaluate", file, "--out", tmp_path / "out.json")
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "rebuilt" in done.stdout
    assert json.loads((tmp_path / "out.json").read_text())["heads"][0]["gates"] == 1
