from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from perfgate.engine.interface import BuildRequest
from perfgate.engine.onnxruntime.backend import OnnxRuntimeBackend
from perfgate.errors import CaseError
from perfgate.measure.launch import CallableTarget, EngineTarget, LaunchRequest, launch
from perfgate.measure.schedule import Job, measure
from perfgate.records import Case, Failed, InputData, Launch, Measured, Protocol, Recipe, Tolerance

QUICK = Protocol(launches=1, warmup_ns=0, duration_ns=0, min_samples=5, timeout_s=120)


def timed(folder: Path, text: str, function: str = "make", protocol: Protocol = QUICK) -> LaunchRequest:
    path = folder / "timed.py"
    path.write_text(text)
    return LaunchRequest(target=CallableTarget(file=str(path), function=function), protocol=protocol)


def test_a_launch_is_a_fresh_process_that_loads_once_and_then_takes_samples(tmp_path: Path) -> None:
    text = f"""
import os
from pathlib import Path
LOG = Path({str(tmp_path / "log")!r})
def note(text):
    with LOG.open("a") as sink: sink.write(f"{{os.getpid()}} {{text}}\\n")
def make():
    note("load")
    return lambda: note("infer")
"""
    one = launch(timed(tmp_path, text))
    lines = [line.split() for line in (tmp_path / "log").read_text().splitlines()]
    assert len({pid for pid, _ in lines}) == 1
    assert int(lines[0][0]) != os.getpid()
    what = [word for _, word in lines]
    assert what[0] == "load"
    # One first inference and at least one to warm up come before the five that are timed.
    assert what[1:] == ["infer"] * len(what[1:])
    assert len(what) - 1 >= 6
    assert len(one.samples_ns) == 5
    assert min(one.load_ns, one.first_inference_ns, one.wall_ns, one.peak_memory_bytes) > 0


def test_the_number_of_samples_is_bounded_from_both_sides(tmp_path: Path) -> None:
    capped = Protocol(warmup_ns=0, duration_ns=10**15, min_samples=1, max_samples=8, timeout_s=120)
    assert len(launch(timed(tmp_path, "make = lambda: (lambda: None)", protocol=capped)).samples_ns) == 8


def test_a_file_may_import_what_lies_beside_it(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("work = lambda: None")
    text = "import beside\ndef make():\n    return beside.work\n"
    assert isinstance(launch(timed(tmp_path, text)), Launch)


@pytest.mark.parametrize(
    ("text", "words", "tail"),
    [
        ("def make(): raise ValueError('no weights')", "exit code 1", "no weights"),
        ("import os\ndef make(): return lambda: os.kill(os.getpid(), 11)", "SIGSEGV", ""),
        ("import os\ndef make(): return lambda: os._exit(0)", "garbage", ""),
        ("def make(): return 3", "returned int, not a callable", ""),
        ("def other(): pass", "exit code 1", "make"),
        ("def make(:", "exit code 1", "SyntaxError"),
    ],
)
def test_a_launch_that_goes_wrong_is_the_cases_fault(
    tmp_path: Path, text: str, words: str, tail: str
) -> None:
    with pytest.raises(CaseError, match=words) as caught:
        launch(timed(tmp_path, text))
    assert tail in caught.value.stderr_tail


def test_a_launch_that_hangs_is_stopped_after_its_timeout(tmp_path: Path) -> None:
    text = "import threading\ndef make(): return threading.Event().wait\n"
    protocol = Protocol(warmup_ns=0, duration_ns=0, min_samples=1, timeout_s=2)
    with pytest.raises(CaseError, match="did not end within"):
        launch(timed(tmp_path, text, protocol=protocol))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that gathers rows by its integer input: an index of 10 or more is out of range."""
    folder = tmp_path_factory.mktemp("engine")
    graph = helper.make_graph(
        [helper.make_node("Gather", ["t", "ids"], ["y"])],
        "gather",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["b"])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["b", 3])],
        initializer=[numpy_helper.from_array(np.ones((10, 3), np.float32), "t")],
    )
    model = helper.make_model(graph, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    source = folder / "net.onnx"
    source.write_bytes(model.SerializeToString())
    backend = OnnxRuntimeBackend("cpu")
    recipe = Recipe(
        backend="onnxruntime", onnx_digest="ab" * 32, precision="fp32", options=backend.build_options()
    )
    backend.build(
        BuildRequest(backend="onnxruntime", recipe=recipe, onnx=str(source), engine=str(folder / "engine"))
    )
    return folder / "engine"


def gathering(engine: Path, name: str, high: float) -> Job:
    case = Case(
        id=name,
        model="net",
        backend="onnxruntime",
        precision="fp32",
        shape={"b": 4},
        inputs={"ids": InputData(generate="integers", low=high - 10, high=high)},
        tolerance=Tolerance(ignore=0.1, catch=0.3),
    )
    target = EngineTarget(engine=str(engine), case=case, folder=str(engine.parent), device="cpu")
    return Job(case_id=name, target=target, protocol=Protocol(**{**FIELDS, "launches": 2}))


# The tests may share the machine: a launch beside others is not taken again.
FIELDS: dict[str, Any] = {
    "warmup_ns": 0,
    "duration_ns": 0,
    "min_samples": 5,
    "timeout_s": 120,
    "foreign_cpu_limit": 1.0,
}


class Silent:
    def start(self, total: int) -> None: ...
    def step(self, case_id: str, note: str) -> None: ...


def test_an_engine_is_launched_on_inputs_as_the_case_says(engine: Path) -> None:
    good, bad = gathering(engine, "good", 10), gathering(engine, "bad", 1000)
    outcomes, interrupted = measure([good, bad], Silent())
    assert not interrupted
    assert isinstance(outcomes["good"], Measured)
    assert [len(one.samples_ns) for one in outcomes["good"].launches] == [5, 5]
    assert isinstance(outcomes["bad"], Failed)
    assert outcomes["bad"].stage == "launch"


def test_a_data_file_that_does_not_fit_is_told_as_the_cases_fault(engine: Path) -> None:
    np.save(engine.parent / "ids.npy", np.zeros(3, np.int64))
    job = gathering(engine, "file", 10)
    assert isinstance(job.target, EngineTarget)
    case = msgspec.structs.replace(
        job.target.case, inputs={"ids": InputData(generate="file", file="ids.npy")}
    )
    target = msgspec.structs.replace(job.target, case=case)
    with pytest.raises(CaseError, match=r"holds int64\[3\], input 'ids' takes int64\[4\]"):
        launch(LaunchRequest(target=target, protocol=QUICK))
