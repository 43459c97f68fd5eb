"""A graph made ready for conversion: constants as initialisers, an opset that every emission can start from.

Unprepared, quantisation leaves weights in FP32 with no more than a vague warning.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from perfgate.errors import CaseError

OPSETS = (13, 17)
_KNOWN_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")


def check_convertible(model: Any) -> None:
    """Raise `CaseError`, in one line, for what no converter of ours understands."""
    for node in model.graph.node:
        what = f"node {node.name or node.output[0]!r}"
        if node.domain not in _KNOWN_DOMAINS:
            raise CaseError(
                f"{what} is the custom operator {node.domain}::{node.op_type}, which ONNX Runtime cannot run",
                fix="give a ready-made graph in [precision.graphs], or measure the model in fp32",
            )
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise CaseError(
                f"{what} ({node.op_type}) holds a subgraph: control flow is not converted",
                fix="export the model without If, Loop and Scan, or give a ready-made graph",
            )


def prepare(source: Path, target: Path, *, quantised: bool) -> None:
    """Write the prepared FP32 graph: where it will be quantised, with the shapes that a calibrator asks for
    and the kernels that a parser does.

    Raises `CaseError` for a graph that cannot be converted.
    """
    import onnx

    model = onnx.load(str(source))
    check_convertible(model)
    opset = max((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0)
    ready, changed = source, False
    if not OPSETS[0] <= opset <= OPSETS[1]:
        model, changed = _at_opset(model, opset), True
    if _name_nodes(model) or changed:
        ready = target.with_suffix(".named.onnx")
        onnx.save_model(model, str(ready), save_as_external_data=_is_large(source))
    del model
    folded = target.with_suffix(".folded.onnx") if quantised else target
    try:
        _fold(ready, folded)
        if quantised:
            _infer_shapes(folded, target)
    except Exception as error:
        raise CaseError(f"ONNX Runtime cannot prepare the graph: {str(error)[:500]}") from error
    _tidy(target, quantised=quantised)


def _fold(source: Path, target: Path) -> None:
    """Constants, batch norms and identities are folded by ONNX Runtime's basic optimisations, which keep to
    standard operators. Layer norms stay as they were: TensorRT 8.5 has no operator for a fused one."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    onnxruntime.InferenceSession(
        str(source),
        options,
        providers=["CPUExecutionProvider"],
        disabled_optimizers=["LayerNormFusionL1", "GeluFusionL1"],
    )


def _infer_shapes(source: Path, target: Path) -> None:
    """What quantisation asks of a graph, and the mark that it was done. Symbolic shapes need sympy and buy
    nothing here."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(source), str(target), skip_symbolic_shape=True, skip_optimization=True)


def _at_opset(model: Any, opset: int) -> Any:
    import onnx

    try:
        model = onnx.version_converter.convert_version(model, OPSETS[1])
    except Exception as error:  # the converter raises plain RuntimeErrors and worse
        raise CaseError(
            f"opset {opset} cannot be converted to {OPSETS[1]}: {str(error).splitlines()[0]}",
            fix=f"export the model at an opset from {OPSETS[0]} to {OPSETS[1]}",
        ) from error
    model.ir_version = 8
    return model


def _is_large(path: Path) -> bool:
    """Is a model near protobuf's limit of 2 GiB? By its files: asking the message costs seconds."""
    beside = path.with_name(path.name + ".data")
    return sum(file.stat().st_size for file in (path, beside) if file.exists()) > 1 << 30


def _name_nodes(model: Any) -> bool:
    """Every node gets a name of its own: exclusions, islands and reports speak of nodes by name."""
    seen: set[str] = set()
    changed = False
    for number, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.op_type}_{number}"
            changed = True
        seen.add(node.name)
    return changed


def _tidy(path: Path, *, quantised: bool) -> None:
    """Only the opsets that are used: ONNX Runtime states all it knows, which other readers refuse."""
    import onnx

    model = onnx.load(str(path))
    used = {node.domain for node in model.graph.node}
    kept = [one for one in model.opset_import if one.domain in ("", "ai.onnx") or one.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.ir_version = 8
    _name_nodes(model)
    if quantised:
        _state_kernels(model)
    onnx.save_model(model, str(path), save_as_external_data=_is_large(path))


def _state_kernels(model: Any) -> None:
    """ONNX lets a convolution leave its kernel's shape to its weights. TensorRT 8.5's parser cannot see it
    through a DequantizeLinear, and then refuses the node: so it is stated."""
    from onnx import helper

    weights = {tensor.name: tensor.dims for tensor in model.graph.initializer}
    for node in model.graph.node:
        stated = any(attribute.name == "kernel_shape" for attribute in node.attribute)
        if node.op_type in ("Conv", "ConvTranspose") and not stated and node.input[1] in weights:
            node.attribute.append(helper.make_attribute("kernel_shape", list(weights[node.input[1]][2:])))


def matching(model: Any, patterns: tuple[str, ...]) -> list[str]:
    """The names of nodes whose name or operator fits a pattern. Raises `CaseError` for one that fits none."""
    import fnmatch

    names: dict[str, None] = {}
    for pattern in patterns:
        found = [
            node.name
            for node in model.graph.node
            if fnmatch.fnmatchcase(node.name, pattern) or fnmatch.fnmatchcase(node.op_type, pattern)
        ]
        if not found:
            raise CaseError(
                f"exclude = {pattern!r} fits no node of the prepared graph",
                fix="give an operator type or a node's name; batch norms and identities are folded first",
            )
        names |= dict.fromkeys(found)
    return list(names)
