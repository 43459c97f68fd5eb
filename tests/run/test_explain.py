"""The whole path without a GPU: two real engines of ONNX Runtime, profiled in child processes, explained."""

from __future__ import annotations

from pathlib import Path

from given_engines import built_side

from perfgate.engine.tensorrt.inspect import unpack_layers
from perfgate.gate.explain.explain import Side, explain_case
from perfgate.measure.launch import EngineTarget
from perfgate.measure.layer_profile import LEAST_LOADS
from perfgate.records import Case, Mode, Tolerance
from perfgate.run.explain import take_loads
from perfgate.util.user_script import load_script

MODELS = Path(__file__).resolve().parents[2] / "models"
CASE = Case(
    id="tinyconv/fp32/b1",
    model="tinyconv",
    backend="onnxruntime",
    precision="fp32",
    shape={"b": 1},
    mode=Mode(drive="call"),
    tolerance=Tolerance(ignore=0.1, catch=0.3),
)


def built(folder: Path, repeat: int) -> tuple[Side, EngineTarget]:
    model = folder / f"tinyconv-{repeat}.onnx"
    load_script(MODELS / "tinyconv.py").write_onnx(str(model), 0, repeat)
    side = built_side(model)
    return side, EngineTarget(engine=side.engine, case=CASE, folder=str(folder), device="cpu")


def test_planted_layers_are_found_by_profiling_for_real(tmp_path: Path) -> None:
    base, base_target = built(tmp_path, 1)
    head, head_target = built(tmp_path, 4)
    assert base.facts is not None
    nodes = {layer.name: layer.onnx_nodes for layer in unpack_layers(base.facts.layer_record).layers}
    assert nodes["middle0.relu_nchwc"] == ("middle0", "middle0.relu")

    loads = take_loads(base_target, head_target, LEAST_LOADS)
    assert [len(side) for side in loads] == [LEAST_LOADS, LEAST_LOADS]
    assert set(loads[0][0].layers_ns) == set(nodes)

    found = explain_case(CASE, base, head, profile=lambda: loads)
    new = {node for change in found.layers if change.kind == "appeared" for node in change.onnx_nodes}
    assert new == {f"middle{i}{part}" for i in range(2, 8) for part in ("", ".relu")}
    assert {change.node for change in found.graph if change.kind == "added"} == new
    assert found.profiled_base_ns and found.profiled_head_ns
    # How much of the time that is depends on this machine's other work.
    assert found.kind in ("new-layers", "not-explained")
    assert found.base_engine == base.facts
