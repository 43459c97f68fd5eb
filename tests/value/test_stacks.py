"""Stacks side by side: what is compared with what, the numbers, and a reason for everything else."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from value_runs import CPU, GPU, REQUEST, case, launch, measured, result, run

from perfgate.records import (
    Accuracy,
    EngineFacts,
    Failed,
    InputData,
    Judgement,
    Launch,
    Measured,
    MetricColumns,
    Mode,
    NotRun,
    RunResult,
    Tf32,
    Unchanged,
    Verdict,
)
from perfgate.value.services import services
from perfgate.value.stacks import compare_stacks
from perfgate.value.table import StackTable

TORCH = run(result(case(), measured(3_000_000, 3_100_000, 2_900_000)))


def tensorrt(*cases: Any, **more: Any) -> RunResult:
    return run(*cases, number=2, **more)


def trt(outcome: Any = None, **more: Any) -> Any:
    recipe = {name: more.pop(name) for name in ("onnx", "version") if name in more}
    return result(case(backend="tensorrt", **more), outcome or measured(1_000_000), **recipe)


def reasons(table: StackTable) -> dict[str, str]:
    return {entry.stack: entry.reason for entry in table.not_compared}


def test_side_by_side() -> None:
    table = compare_stacks([TORCH, tensorrt(trt(measured(1_000_000, 1_000_000, 1_100_000)))])
    assert [stack.label for stack in table.stacks] == ["torch 2.11.0 eager", "tensorrt 8.5.3"]
    assert not table.not_compared
    (row,) = table.rows
    assert (row.model, row.precision, row.shape, row.items) == ("resnet50", "fp32", {"b": 8}, 8)
    torch, trt_line = row.lines
    assert torch.latency_ns.value == 3_000_000
    assert (torch.latency_ns.low, torch.latency_ns.high) == (2_900_000, 3_100_000)
    assert torch.speedup.value == torch.speedup.low == torch.speedup.high == 1
    assert trt_line.speedup.value == 3
    assert trt_line.speedup.low == pytest.approx(2.9 / 1.1, abs=1e-4)
    assert trt_line.speedup.high == pytest.approx(3.1, abs=1e-4)
    assert trt_line.p99_ns == 2_000_000
    assert (trt_line.launches, trt_line.samples) == (3, 2000)
    assert trt_line.throughput_qps == pytest.approx(1000)
    assert trt_line.items_per_s == pytest.approx(8000)
    assert trt_line.memory_bytes == 1 << 30
    assert trt_line.mode == REQUEST


def test_invalid_launches_do_not_count() -> None:
    launches = (launch(9_000_000, invalid="thermal"), launch(1_000_000))
    table = compare_stacks([TORCH, tensorrt(trt(Measured(engine=None, launches=launches)))])
    assert table.rows[0].lines[1].latency_ns.value == 1_000_000
    assert table.rows[0].lines[1].launches == 1


def test_the_originals_fastest_mode_is_the_reference() -> None:
    graph = Mode(drive="graph", transfers=True)
    original = run(result(case(), measured(3_000_000)), result(case(mode=graph), measured(2_000_000)))
    table = compare_stacks([original, tensorrt(trt())])
    lines = table.rows[0].lines
    assert [(line.stack.split()[0], line.mode.drive) for line in lines] == [
        ("torch", "graph"),
        ("torch", "enqueue"),
        ("tensorrt", "enqueue"),
    ]
    assert [line.speedup.value for line in lines] == [1, pytest.approx(2 / 3, abs=1e-4), 2]


def test_the_mode_that_was_measured_counts() -> None:
    plain = Mode(drive="graph")
    outcome = measured(1_000_000, mode=Mode(drive="enqueue"))
    table = compare_stacks([TORCH, tensorrt(trt(outcome, mode=plain))])
    assert "measure it in the mode 'enqueue+transfers'" in reasons(table)["tensorrt 8.5.3"]


def test_on_a_cpu_the_call_is_the_request() -> None:
    call = Mode()
    first = run(result(case(mode=call), measured(3_000_000)), key=CPU)
    table = compare_stacks([first, tensorrt(trt(mode=call), key=CPU)])
    assert table.rows[0].lines[1].speedup.value == 3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"onnx": "b"}, "another model: its ONNX graph is bbbbbbbbbbbb"),
        ({"inputs": {"x": InputData(seed=2)}}, "other input data than torch 2.11.0 eager: x"),
        ({"batch": 1}, "not measured at this shape, only at b8"),
        ({"precision": "fp16"}, "not measured in this precision, only in fp32"),
        ({"model": "bert"}, "it has no case of this model"),
        ({"mode": Mode(drive="graph")}, "measured without transfers (graph, no transfers, block)"),
        ({"mode": Mode(drive="graph", transfers=True, streams=4)}, "4 streams share the device"),
        ({"outcome": NotRun(reason="too slow")}, "not run: too slow"),
        ({"outcome": Failed(stage="build", reason="no kernel")}, "failed at build: no kernel"),
        ({"outcome": Unchanged()}, "without its baseline's numbers"),
        (
            {"outcome": Measured(engine=None, launches=(launch(1, invalid="thermal"),))},
            "no launch is valid: thermal",
        ),
        (
            {
                "outcome": measured(1_000_000).__class__(
                    engine=EngineFacts(digest="a" * 64, engine_bytes=1, unmet="half is FP32"),
                    launches=(launch(1),),
                )
            },
            "its precision was not realised: half is FP32",
        ),
    ],
)
def test_what_cannot_be_compared_has_a_reason(change: dict[str, Any], reason: str) -> None:
    table = compare_stacks([TORCH, tensorrt(trt(**change))])
    assert not table.rows
    assert any(reason in entry.reason for entry in table.not_compared), table.not_compared
    # Both sides are accounted for: nothing was dropped.
    assert {entry.stack for entry in table.not_compared} == {"torch 2.11.0 eager", "tensorrt 8.5.3"}


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ({**GPU, "gpu": "NVIDIA A100"}, "gpu is NVIDIA A100, with torch 2.11.0 eager NVIDIA H200"),
        ({**GPU, "mig": "1g.18gb"}, "mig is 1g.18gb"),
        ({**GPU, "sm_count": "16"}, "sm_count is 16"),
        (CPU, "another device: cpu-epyc"),
    ],
)
def test_another_device(key: dict[str, str], reason: str) -> None:
    table = compare_stacks([TORCH, tensorrt(trt(), key=key)])
    assert not table.rows
    assert reason in reasons(table)["tensorrt 8.5.3"]


def test_a_reading_that_one_side_lacks_is_no_other_device() -> None:
    table = compare_stacks([TORCH, tensorrt(trt(), key={"gpu": "NVIDIA H200"})])
    assert len(table.rows) == 1
    assert {d.field for d in table.stacks[1].differences} == {"mig", "sm_count", "driver"}


def test_an_environment_that_differs_is_said_and_libraries_are_not() -> None:
    table = compare_stacks([TORCH, tensorrt(trt(), key={**GPU, "driver": "575.2"})])
    (difference,) = table.stacks[1].differences
    assert (difference.field, difference.base, difference.head) == ("driver", "580.1", "575.2")
    assert not table.stacks[0].differences


def test_a_case_without_a_recipe_is_listed() -> None:
    plain = result(case("python", backend="python"), recipe=None)
    table = compare_stacks([TORCH, tensorrt(trt(), plain)])
    assert len(table.rows) == 1
    assert "no recipe" in reasons(table)["tensorrt 8.5.3"]


def test_one_bad_stack_leaves_the_others_compared() -> None:
    table = compare_stacks([TORCH, tensorrt(trt(onnx="b")), run(trt(version="10.1"), number=3)])
    assert [line.stack for line in table.rows[0].lines] == ["torch 2.11.0 eager", "tensorrt 10.1"]
    assert "another model" in reasons(table)["tensorrt 8.5.3"]


def test_an_original_that_failed_is_compared_with_nothing() -> None:
    original = run(result(case(), Failed(stage="launch", reason="crashed")))
    table = compare_stacks([original, tensorrt(trt())])
    assert not table.rows
    assert reasons(table) == {
        "torch 2.11.0 eager": "failed at launch: crashed",
        "tensorrt 8.5.3": "torch 2.11.0 eager, the original, has no comparable case",
    }


def test_an_unchanged_case_stands_for_its_baseline() -> None:
    base: MetricColumns = {
        "latency_ns": (1_000_000, 1_000_000),
        "p99_ns": (2_000_000, 2_000_000),
        "samples": (2000, 2000),
        "throughput_qps": (1000.0, 1000.0),
    }
    judgement = Judgement(verdict=Verdict.UNCHANGED, reason="same", base=base)
    unchanged = msgspec.structs.replace(trt(Unchanged()), judgement=judgement)
    line = compare_stacks([TORCH, tensorrt(unchanged)]).rows[0].lines[1]
    assert line.stored and line.speedup.value == 3 and line.memory_bytes is None


def test_labels_of_the_same_stack_are_told_apart() -> None:
    compiled = run(result(case(backend="torch-compile")), number=3)
    table = compare_stacks([TORCH, TORCH, tensorrt(result(case())), compiled])
    assert [stack.label for stack in table.stacks] == [
        "torch 2.11.0 eager (run-1)",
        "torch 2.11.0 eager (run-1) #2",
        "torch 2.11.0 eager (run-2)",
        "torch 2.11.0 compile",
    ]
    assert len(table.rows[0].lines) == 4


def test_every_case_is_accounted_for() -> None:
    first = run(result(case()), result(case("bert")), result(case(batch=1), NotRun(reason="no")))
    second = tensorrt(trt(), trt(model="vgg"), trt(batch=1))
    table = compare_stacks([first, second])
    told = {(line.stack, line.case_id) for row in table.rows for line in row.lines}
    told |= {(entry.stack, entry.case_id) for entry in table.not_compared}
    for label, one in zip((stack.label for stack in table.stacks), (first, second), strict=True):
        assert {(label, found.case.id) for found in one.cases} <= told


def test_nothing_and_one_file() -> None:
    assert not compare_stacks([]).rows
    alone = compare_stacks([TORCH])
    assert not alone.rows
    assert reasons(alone) == {"torch 2.11.0 eager": "no other stack has a comparable case"}


def test_extreme_numbers_stay_finite() -> None:
    tiny = Launch(samples_ns=(1,), wall_ns=1, load_ns=0, first_inference_ns=0)
    huge = Launch(samples_ns=((1 << 62) - 1,), wall_ns=(1 << 62) - 1, load_ns=0, first_inference_ns=0)
    one, other = (Measured(engine=None, launches=(x,)) for x in (tiny, huge))
    line = compare_stacks([run(result(case(), one)), tensorrt(trt(other))]).rows[0].lines[1]
    assert 0 <= line.speedup.value < 1
    assert line.memory_bytes is None


WRONG = Accuracy(reference="ONNX Runtime", failures=("output 'y' holds 8 NaN or infinite values",))


def test_a_case_with_wrong_answers_is_refused_with_what_is_wrong() -> None:
    wrong = msgspec.structs.replace(trt(), accuracy=WRONG)
    table = compare_stacks([TORCH, tensorrt(wrong)])
    assert not table.rows
    assert reasons(table)["tensorrt 8.5.3"].endswith("output 'y' holds 8 NaN or infinite values")


def test_a_case_whose_verdict_is_error_is_refused() -> None:
    judgement = Judgement(verdict=Verdict.ERROR, reason="the answers are wrong: 12 dB", code="accuracy")
    unchanged = msgspec.structs.replace(trt(), judgement=judgement)
    table = compare_stacks([TORCH, tensorrt(unchanged)])
    assert not table.rows
    assert reasons(table)["tensorrt 8.5.3"] == "its verdict is ERROR: the answers are wrong: 12 dB"


def test_an_original_with_wrong_answers_is_compared_with_nothing() -> None:
    original = run(msgspec.structs.replace(result(case()), accuracy=WRONG))
    assert not compare_stacks([original, tensorrt(trt())]).rows


def with_tf32(state: Tf32 | None) -> Measured:
    facts = EngineFacts(digest="a" * 64, engine_bytes=1, tf32=state)
    return msgspec.structs.replace(measured(1_000_000), engine=facts)


@pytest.mark.parametrize(
    ("old", "new", "differs"),
    [("convolutions only", "on", True), ("on", "on", False), (None, "on", False), (None, None, False)],
)
def test_what_rounds_to_tf32_is_known_line_by_line(old: Tf32 | None, new: Tf32 | None, differs: bool) -> None:
    original = run(result(case(), with_tf32(old)))
    (row,) = compare_stacks([original, tensorrt(trt(with_tf32(new)))]).rows
    assert [line.tf32 for line in row.lines] == [old, new]
    assert row.tf32_differs is differs


def test_a_stack_of_cuda_graphs_runs_the_measured_batches_only() -> None:
    enqueued = [result(case(batch=batch), measured(1_000_000)) for batch in (1, 8)]
    graph = Mode(drive="graph", transfers=True)
    captured = [result(case(batch=batch, mode=graph), measured(1_000_000)) for batch in (1, 8)]
    ((one,), (other,)) = services([run(*enqueued), run(*captured, number=2)])
    assert (one.service().padded, other.service().padded) == (False, True)
