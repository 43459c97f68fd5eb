"""FP16 and INT8 graphs, made by ONNX Runtime's own tools and run by it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from precision_models import batches, hot, made, network, save, spec_of

from perfgate.errors import CaseError, SpecError
from perfgate.model.precision.int8 import check_weights
from perfgate.model.precision.layer_error import layer_losses
from perfgate.model.precision.probe import faithful_session, first_nonfinite, largest, plain_session


def answers(path: str | Path, *, faithful: bool = False) -> Any:
    session = faithful_session(Path(path)) if faithful else plain_session(str(path))
    return np.concatenate([session.run(None, batch)[0] for batch in batches()])


def sqnr_db(reference: Any, found: Any) -> float:
    return float(10 * np.log10(np.square(reference).sum() / np.square(reference - found).sum()))


def initialisers(model: Any) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def test_fp16_keeps_io_in_fp32_and_weights_in_fp16(tmp_path: Path) -> None:
    source = network(tmp_path / "net.onnx")
    emission = made(spec_of(tmp_path), "fp16")
    model = onnx.load(emission.path)
    kinds = {v.name: v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    assert kinds == {"x": TensorProto.FLOAT, "y": TensorProto.FLOAT}
    assert {t.data_type for t in model.graph.initializer if t.dims} == {TensorProto.FLOAT16}
    assert {node.op_type for node in model.graph.node} >= {"Cast", "Conv"}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}
    assert emission.islands == ()
    assert 45 < sqnr_db(answers(source), answers(emission.path, faithful=True)) < 100


def test_inputs_and_outputs_are_fp16_where_the_spec_says_so(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    model = onnx.load(made(spec_of(tmp_path, "[precision]\nkeep_io = false\n"), "fp16").path)
    kinds = {v.type.tensor_type.elem_type for v in (*model.graph.input, *model.graph.output)}
    assert kinds == {TensorProto.FLOAT16}


def test_nodes_that_calibration_drives_beyond_fp16_stay_in_fp32_and_are_named(tmp_path: Path) -> None:
    source = hot(tmp_path / "net.onnx")
    emission = made(spec_of(tmp_path), "fp16")
    assert set(emission.islands) == {"top", "down"}
    assert any("kept in FP32" in note and "top (up to" in note for note in emission.notes)
    assert np.isfinite(answers(emission.path, faithful=True)).all()
    assert sqnr_db(answers(source), answers(emission.path, faithful=True)) > 50


def test_without_islands_it_overflows_and_the_first_layer_is_found(tmp_path: Path) -> None:
    hot(tmp_path / "net.onnx")
    emission = made(spec_of(tmp_path, "[precision]\nislands = false\n"), "fp16")
    assert not np.isfinite(answers(emission.path, faithful=True)).all()
    # ONNX Runtime alone computes in FP32 and would let it pass.
    assert np.isfinite(answers(emission.path)).all()
    found = first_nonfinite(Path(emission.path), batches())
    assert found is not None
    assert (found.node, found.operator) == ("top", "Mul")
    assert first_nonfinite(tmp_path / "net.onnx", batches()) is None
    assert max(largest(tmp_path / "net.onnx", batches()), key=lambda one: one.value).tensor == "top"


def test_weights_that_fp16_cannot_hold_are_reported(tmp_path: Path) -> None:
    weights = {"w": np.full((4, 3, 3, 3), 1e6, np.float32), "u": np.full((4, 4, 1, 1), 1e-9, np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], "big"),
        helper.make_node("Conv", ["c", "u"], ["y"], "small"),
    ]
    save(tmp_path / "net.onnx", nodes, weights)
    notes = made(spec_of(tmp_path, "[precision]\nislands = false\n"), "fp16").notes
    assert any("108 weights above 65504, clamped to it: w" in note for note in notes)
    assert any("16 weights too small for FP16" in note and "u" in note for note in notes)


def test_operators_and_nodes_are_excluded_by_pattern(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    emission = made(spec_of(tmp_path, '[precision]\nexclude = ["Gemm", "conv2"]\n'), "fp16")
    assert set(emission.islands) == {"fc", "conv2"}
    stored = initialisers(onnx.load(emission.path))
    assert stored["w3"].data_type == stored["w2"].data_type == TensorProto.FLOAT
    with pytest.raises(CaseError, match="'nothing' fits no node"):
        made(spec_of(tmp_path, '[precision]\nexclude = ["nothing"]\n'), "fp16")


def scales_and_zeros(model: Any) -> list[tuple[Any, Any]]:
    stored = initialisers(model)
    return [
        (numpy_helper.to_array(stored[node.input[1]]), numpy_helper.to_array(stored[node.input[2]]))
        for node in model.graph.node
        if node.op_type == "QuantizeLinear"
    ]


@pytest.mark.parametrize("method", ["minmax", "entropy", "percentile"])
def test_int8_is_symmetric_per_channel_and_leaves_bias_alone(tmp_path: Path, method: str) -> None:
    source = network(tmp_path / "net.onnx")
    spec = spec_of(tmp_path, f'[calibration]\nmethod = "{method}"\n')
    emission = made(spec, "int8")
    assert emission.converted and emission.calibrated and not emission.cached
    assert 0 < emission.calibration_ns < emission.total_ns
    assert made(spec, "int8") == msgspec.structs.replace(emission, cached=True)
    model = onnx.load(emission.path)
    assert all(not zero.any() and zero.dtype == np.int8 for _, zero in scales_and_zeros(model))
    makers = {output: node for node in model.graph.node for output in node.output}
    stored = initialisers(model)
    for name, channels in (("conv1", 4), ("conv2", 4), ("fc", 10)):
        node = next(node for node in model.graph.node if node.name == name)
        assert list(stored[makers[node.input[1]].input[1]].dims) == [channels]
        if len(node.input) > 2:
            assert stored[node.input[2]].data_type == TensorProto.FLOAT
    shift = next(node for node in model.graph.node if node.name == "shift")
    assert "half" in shift.input  # the addition of a constant is left alone
    assert max(one.version for one in model.opset_import) == 17
    assert sqnr_db(answers(source), answers(emission.path)) > 20


def test_a_quantised_convolution_states_its_kernel(tmp_path: Path) -> None:
    """TensorRT 8.5's parser refuses one that leaves it to weights behind a DequantizeLinear."""
    source = onnx.load(str(network(tmp_path / "net.onnx")))
    assert not any(a.name == "kernel_shape" for node in source.graph.node for a in node.attribute)
    model = onnx.load(made(spec_of(tmp_path), "int8").path)
    kernels = [list(a.ints) for node in model.graph.node for a in node.attribute if a.name == "kernel_shape"]
    assert kernels == [[3, 3], [3, 3]]


def makers_of(model: Any, name: str) -> list[str]:
    """The operators behind the inputs of a node."""
    makers = {output: node.op_type for node in model.graph.node for output in node.output}
    (node,) = (node for node in model.graph.node if node.name == name)
    return [makers.get(tensor, "") for tensor in node.input]


def test_a_residual_sum_takes_the_convolutions_result_unrounded(tmp_path: Path) -> None:
    source = network(tmp_path / "net.onnx")
    emission = made(spec_of(tmp_path), "int8")
    model = onnx.load(emission.path)
    assert makers_of(model, "residual") == ["Conv", "DequantizeLinear"]
    assert {name for node in model.graph.node for name in node.input} >= initialisers(model).keys()
    assert sqnr_db(answers(source), answers(emission.path)) > 25


def test_of_two_convolutions_that_are_added_one_is_rounded(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    weights = {name: random.normal(0, 0.3, (4, 3, 3, 3)).astype(np.float32) for name in ("w1", "w2")}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "long"),
        helper.make_node("Conv", ["x", "w2"], ["c2"], "short"),
        helper.make_node("Add", ["c1", "c2"], ["a"], "sum"),
        helper.make_node("Relu", ["a"], ["y"], "relu"),
    ]
    save(tmp_path / "net.onnx", nodes, weights)
    model = onnx.load(made(spec_of(tmp_path), "int8").path)
    assert makers_of(model, "sum") == ["Conv", "DequantizeLinear"]


def test_a_result_that_something_else_reads_too_stays_quantised(tmp_path: Path) -> None:
    weights = {"w1": np.random.default_rng(0).normal(0, 0.3, (3, 3, 1, 1)).astype(np.float32)}
    nodes = [
        helper.make_node("Conv", ["x", "w1"], ["c1"], "conv"),
        helper.make_node("Add", ["c1", "x"], ["a"], "sum"),
        helper.make_node("MaxPool", ["c1"], ["p"], "pool", kernel_shape=[1, 1]),
        helper.make_node("Concat", ["a", "p"], ["y"], "both", axis=1),
    ]
    save(tmp_path / "net.onnx", nodes, weights)
    model = onnx.load(made(spec_of(tmp_path), "int8").path)
    assert makers_of(model, "sum") == ["DequantizeLinear", "DequantizeLinear"]


def test_a_weight_that_is_not_int8_per_channel_is_an_error(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    path = made(spec_of(tmp_path), "int8").path
    wanted = ["conv1", "conv2", "fc"]
    check_weights(onnx.load(path), wanted)
    model = onnx.load(path)
    next(node for node in model.graph.node if node.name == "conv2").input[1] = "w2"
    with pytest.raises(CaseError, match="'conv2' stayed in floating point"):
        check_weights(model, wanted)
    model = onnx.load(path)
    fc = next(node for node in model.graph.node if node.name == "fc")
    maker = next(node for node in model.graph.node if fc.input[1] in node.output)
    scale = initialisers(model)[maker.input[1]]
    scale.CopyFrom(numpy_helper.from_array(np.float32(0.1), scale.name))
    with pytest.raises(CaseError, match="'fc' got one scale for all channels"):
        check_weights(model, wanted)


def test_strong_int8_fp16_has_fp16_scales_and_weak_keeps_fp32(tmp_path: Path) -> None:
    source = network(tmp_path / "net.onnx")
    spec = spec_of(tmp_path)
    strong, weak = made(spec, "int8+fp16"), made(spec, "int8+fp16", "weak")
    scales = {scale.dtype.name for scale, _ in scales_and_zeros(onnx.load(strong.path))}
    assert scales == {"float16"}
    assert {one.version for one in onnx.load(strong.path).opset_import if not one.domain} == {19}
    assert {scale.dtype.name for scale, _ in scales_and_zeros(onnx.load(weak.path))} == {"float32"}
    for emission in (strong, weak):
        assert sqnr_db(answers(source), answers(emission.path, faithful=True)) > 20


def test_a_weak_builder_is_told_what_to_keep_in_fp32(tmp_path: Path) -> None:
    hot(tmp_path / "net.onnx")
    spec = spec_of(tmp_path, '[precision]\nexclude = ["out"]\n')
    assert set(made(spec, "int8+fp16", "weak").islands) == {"out", "top", "down"}


def test_an_old_opset_is_raised_and_a_graph_without_names_gets_them(tmp_path: Path) -> None:
    nodes = [helper.make_node("Relu", ["x"], ["r"]), helper.make_node("Conv", ["r", "w"], ["y"])]
    save(tmp_path / "net.onnx", nodes, {"w": np.ones((4, 3, 3, 3), np.float32)}, opset=11)
    model = onnx.load(made(spec_of(tmp_path), "int8").path)
    assert {one.version for one in model.opset_import if not one.domain} == {17}
    assert all(node.name for node in model.graph.node)


def test_layer_norm_is_not_fused_because_tensorrt_8_5_has_none(tmp_path: Path) -> None:
    weights = {"two": np.float32(2), "e": np.float32(1e-5), "g": np.ones(8, np.float32)}
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], "mean", axes=[-1]),
        helper.make_node("Sub", ["x", "m"], ["d"], "sub"),
        helper.make_node("Pow", ["d", "two"], ["p"], "pow"),
        helper.make_node("ReduceMean", ["p"], ["v"], "variance", axes=[-1]),
        helper.make_node("Add", ["v", "e"], ["ve"], "add"),
        helper.make_node("Sqrt", ["ve"], ["s"], "sqrt"),
        helper.make_node("Div", ["d", "s"], ["n"], "div"),
        helper.make_node("Mul", ["n", "g"], ["o"], "mul"),
        helper.make_node("Add", ["o", "g"], ["y"], "bias"),
    ]
    save(tmp_path / "net.onnx", nodes, weights)
    operators = {node.op_type for node in onnx.load(made(spec_of(tmp_path), "fp16").path).graph.node}
    assert "LayerNormalization" not in operators
    assert "Sqrt" in operators


def branch() -> Any:
    inner = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["z"])],
        "inner",
        [],
        [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)],
    )
    return helper.make_node("If", ["yes"], ["y"], "choice", then_branch=inner, else_branch=inner)


@pytest.mark.parametrize(
    ("node", "said"),
    [
        (branch(), "'choice' (If) holds a subgraph"),
        (helper.make_node("Twist", ["x"], ["y"], "t1", domain="acme"), "custom operator acme::Twist"),
    ],
    ids=["control flow", "custom operator"],
)
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_no_converter_understands_is_one_clear_line(
    tmp_path: Path, node: Any, said: str, precision: Any
) -> None:
    save(tmp_path / "net.onnx", [node], {"yes": np.array(True)})
    with pytest.raises(CaseError) as caught:
        made(spec_of(tmp_path), precision)
    assert said in caught.value.what
    assert "\n" not in caught.value.what
    assert caught.value.fix


def test_bf16_is_refused_with_the_reason(tmp_path: Path) -> None:
    network(tmp_path / "net.onnx")
    with pytest.raises(SpecError, match=r"BF16 is not made: .* TensorRT 8\.5 lacks it"):
        spec_of(tmp_path, top='precisions = ["fp32", "bf16"]')


def test_layers_are_ranked_by_what_they_lose(tmp_path: Path) -> None:
    source = network(tmp_path / "net.onnx")
    losses = layer_losses(source, Path(made(spec_of(tmp_path), "int8").path), batches(2))
    assert {loss.node for loss in losses} >= {"conv1", "conv2", "residual", "fc"}
    assert [loss.sqnr_db for loss in losses] == sorted(loss.sqnr_db for loss in losses)
    assert 10 < losses[0].sqnr_db < 60


@pytest.mark.parametrize("precision", ["fp16", "int8", "int8+fp16"])
def test_tensorrt_for_rtx_builds_what_is_emitted(tmp_path: Path, precision: Any) -> None:
    pytest.importorskip("tensorrt_rtx", exc_type=ImportError)
    from perfgate.engine.interface import BuildRequest
    from perfgate.engine.tensorrt.backend import TensorRTBackend
    from perfgate.records import Dimension, Recipe

    network(tmp_path / "net.onnx")
    emission = made(spec_of(tmp_path), precision)
    recipe = Recipe(
        backend="tensorrt-rtx",
        onnx_digest="0" * 64,
        precision=precision,
        profile={"b": Dimension(min=1, opt=2, max=4)},
    )
    request = BuildRequest(
        backend="tensorrt-rtx",
        recipe=recipe,
        onnx=emission.path,
        engine=str(tmp_path / "engine"),
        islands=emission.islands,
    )
    assert TensorRTBackend(name="tensorrt-rtx").build(request).engine_bytes > 0
