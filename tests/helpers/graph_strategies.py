"""Random small ONNX models for hypothesis, other ways to write the same model, and changes of a model."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from perfgate.model.external_data import all_tensors

TYPES = (
    TensorProto.FLOAT, TensorProto.UINT8, TensorProto.INT8, TensorProto.UINT16, TensorProto.INT16,
    TensorProto.INT32, TensorProto.INT64, TensorProto.BOOL, TensorProto.FLOAT16, TensorProto.DOUBLE,
    TensorProto.UINT32, TensorProto.UINT64, TensorProto.COMPLEX64, TensorProto.COMPLEX128,
    TensorProto.BFLOAT16,
)  # fmt: skip
EXTERNAL = "weights.data"
MAPS = {
    "opset_import", "functions", "initializer", "sparse_initializer", "quantization_annotation",
    "quant_parameter_tensor_names", "attribute", "attribute_proto",
}  # fmt: skip


def tensor(seed: int, name: str, kind: int, size: int) -> Any:
    """A tensor of `size` values; of a kind of `TYPES`, or of strings."""
    drawn = np.random.default_rng(seed)
    if kind == TensorProto.STRING:
        words = [
            bytes(drawn.integers(97, 123, int(drawn.integers(0, 4))).astype(np.uint8)) for _ in range(size)
        ]
        return helper.make_tensor(name, kind, [size], words)
    values = drawn.integers(0, 2 if kind == TensorProto.BOOL else 100, size)
    return numpy_helper.from_array(values.astype(helper.tensor_dtype_to_np_dtype(kind)), name)


ATTRIBUTES: dict[str, st.SearchStrategy[Any]] = {
    "alpha": st.floats(width=32, allow_nan=False),
    "axis": st.integers(-(2**63), 2**63 - 1),
    "mode": st.text(max_size=5),
    "scales": st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=4),
    "pads": st.lists(st.integers(-9, 9), min_size=1, max_size=4),
    "names": st.lists(st.text(max_size=3), min_size=1, max_size=3),
}


@st.composite
def nodes(draw: Callable[[Any], Any], depth: int) -> Any:
    """A node with attributes, among them tensors and, above depth 0, a subgraph."""
    node = helper.make_node(
        draw(st.sampled_from(("Relu", "Add", "Own"))),
        draw(st.lists(st.sampled_from("abcx"), max_size=3)),
        [draw(st.sampled_from("abcy"))],
        name=draw(st.sampled_from(("", "n1", "n2"))),
        domain=draw(st.sampled_from(("", "own"))),
    )
    for name in draw(st.lists(st.sampled_from(sorted(ATTRIBUTES)), unique=True, max_size=3)):
        node.attribute.append(helper.make_attribute(name, draw(ATTRIBUTES[name])))
    if draw(st.booleans()):
        value = tensor(
            draw(st.integers(0, 99)), "value", draw(st.sampled_from(TYPES)), draw(st.integers(0, 4))
        )
        node.attribute.append(helper.make_attribute("value", value))
    if depth and draw(st.booleans()):
        node.attribute.append(helper.make_attribute("then_branch", draw(graphs(depth - 1))))
    return node


@st.composite
def graphs(draw: Callable[[Any], Any], depth: int = 1) -> Any:
    shape = draw(st.lists(st.sampled_from(("b", 1, 2, None)), max_size=3))
    names = draw(st.lists(st.sampled_from("stuvw"), unique=True, max_size=3))
    kinds = st.sampled_from((*TYPES, TensorProto.STRING))
    graph = helper.make_graph(
        draw(st.lists(nodes(depth), min_size=1, max_size=3)),
        draw(st.sampled_from(("main", "net"))),
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        initializer=[
            tensor(draw(st.integers(0, 99)), name, draw(kinds), draw(st.integers(0, 5))) for name in names
        ],
    )
    if draw(st.booleans()):
        indices = numpy_helper.from_array(np.arange(2), "at")
        graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                tensor(draw(st.integers(0, 9)), "sparse", TensorProto.FLOAT, 2), indices, [9]
            )
        )
    for name in draw(st.lists(st.sampled_from("xy"), unique=True, max_size=2)):
        note = graph.quantization_annotation.add(tensor_name=name)
        note.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
        note.quant_parameter_tensor_names.add(key="ZERO_POINT_TENSOR", value="t")
    return graph


@st.composite
def models(draw: Callable[[Any], Any]) -> Any:
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function(
            "own",
            name,
            ["x"],
            ["y"],
            draw(st.lists(nodes(0), min_size=1, max_size=2)),
            opsets,
            ["alpha", "axis"],
        )
        for name in draw(st.lists(st.sampled_from(("F", "G")), unique=True))
    ]
    return helper.make_model(
        draw(graphs()), ir_version=10, opset_imports=opsets, functions=functions, producer_name="maker"
    )


def written_otherwise(model: Any, seed: int, folder: Path) -> Any:
    """The same model with other notes, another order of its maps, and its tensors stored in random ways; the
    external ones share a file in `folder`."""
    drawn = random.Random(seed)
    other = onnx.ModelProto()
    other.CopyFrom(model)
    other.producer_name, other.producer_version = drawn.choice("ab"), drawn.choice("ab")
    other.domain, other.model_version = f"com.{seed}", seed
    _write_notes(other, drawn)
    content = bytearray()
    for one in all_tensors(other):
        _store(one, drawn.choice(("raw", "typed", "external")), content, drawn)
    (folder / EXTERNAL).write_bytes(bytes(content))
    return other


def _write_notes(message: Any, drawn: random.Random) -> None:
    """Doc strings, metadata and inferred shapes into a message and all that it holds; maps are shuffled."""
    fields = message.DESCRIPTOR.fields_by_name
    for name in MAPS & set(fields):
        copies = [_copied(entry) for entry in getattr(message, name)]
        drawn.shuffle(copies)
        message.ClearField(name)
        getattr(message, name).extend(copies)
    for field, value in message.ListFields():
        if field.message_type is not None and field.name != "metadata_props":
            for part in [value] if hasattr(value, "ListFields") else value:
                _write_notes(part, drawn)
    if "doc_string" in fields:
        message.doc_string = f'File "/home/{drawn.random()}/net.py", line 3, in forward'
    if "metadata_props" in fields:
        message.metadata_props.add(key="pkg.torch.onnx.stack_trace", value=f"/build/{drawn.random()}")
    if "value_info" in fields:
        message.value_info.append(helper.make_tensor_value_info("a", TensorProto.FLOAT, [drawn.randrange(9)]))


def _copied(entry: Any) -> Any:
    if isinstance(entry, str):
        return entry
    copy = type(entry)()
    copy.CopyFrom(entry)
    return copy


def _store(one: Any, how: str, content: bytearray, drawn: random.Random) -> None:
    """Store a tensor in another way, by onnx's own functions."""
    if one.data_type == TensorProto.STRING:
        return
    values, name, kind = numpy_helper.to_array(one), one.name, one.data_type
    note, dims = one.doc_string, list(one.dims)
    if how == "typed":
        one.CopyFrom(helper.make_tensor(name, kind, dims, values.flatten().tolist()))
    else:
        one.CopyFrom(helper.make_tensor(name, kind, dims, values.tobytes(), raw=True))
    one.doc_string = note
    if how == "external":
        content += bytes(drawn.randrange(3))
        one.external_data.add(key="location", value=EXTERNAL)
        one.external_data.add(key="offset", value=str(len(content)))
        one.external_data.add(key="length", value=str(len(one.raw_data)))
        content += one.raw_data
        one.data_location = TensorProto.EXTERNAL
        one.ClearField("raw_data")


def _weight(model: Any) -> None:
    one = next(t for t in all_tensors(model) if t.raw_data)
    one.raw_data = bytes([one.raw_data[0] ^ 1]) + one.raw_data[1:]


def _string(model: Any) -> None:
    one = next(t for t in all_tensors(model) if t.string_data)
    one.string_data[0] += b"!"


def _dims(model: Any) -> None:
    next(iter(all_tensors(model))).dims.append(1)


def _type(model: Any) -> None:
    one = next(t for t in all_tensors(model) if t.data_type == TensorProto.INT8)
    one.data_type = TensorProto.UINT8


def _initializer_name(model: Any) -> None:
    model.graph.initializer[0].name += "z"


def _constant_name(model: Any) -> None:
    next(a for n in model.graph.node for a in n.attribute if a.HasField("t")).t.name = "z"


def _attribute(model: Any) -> None:
    attribute = next(a for n in model.graph.node for a in n.attribute if a.name == "axis")
    attribute.i ^= 1


def _attribute_name(model: Any) -> None:
    next(a for n in model.graph.node for a in n.attribute).name = "z"


def _node_order(model: Any) -> None:
    first, *rest = [_copied(node) for node in model.graph.node]
    assert rest
    assert rest[0] != first
    model.graph.ClearField("node")
    model.graph.node.extend([rest[0], first, *rest[1:]])


def _subgraph(model: Any) -> None:
    graph = next(a.g for n in model.graph.node for a in n.attribute if a.HasField("g"))
    graph.node[0].op_type += "2"


def _subgraph_weight(model: Any) -> None:
    graph = next(a.g for n in model.graph.node for a in n.attribute if a.HasField("g"))
    graph.initializer.append(numpy_helper.from_array(np.zeros(1, np.float32), "z"))


def _function(model: Any) -> None:
    model.functions[0].node[0].op_type += "2"


def _function_opset(model: Any) -> None:
    model.functions[0].opset_import[0].version += 1


def _sparse(model: Any) -> None:
    model.graph.sparse_initializer[0].dims[0] += 1


def _quantization(model: Any) -> None:
    model.graph.quantization_annotation[0].quant_parameter_tensor_names[0].value = "z"


def _opset(model: Any) -> None:
    model.opset_import[0].version += 1


def _ir_version(model: Any) -> None:
    model.ir_version += 1


def _input_shape(model: Any) -> None:
    model.graph.input[0].type.tensor_type.shape.dim.add(dim_value=7)


def _input_name(model: Any) -> None:
    model.graph.input[0].name = "z"


def _output_type(model: Any) -> None:
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.DOUBLE


def _op_type(model: Any) -> None:
    model.graph.node[0].op_type += "2"


def _node_name(model: Any) -> None:
    model.graph.node[0].name += "2"


def _node_domain(model: Any) -> None:
    model.graph.node[0].domain += "2"


def _node_input(model: Any) -> None:
    model.graph.node[0].input.append("z")


def _node_output(model: Any) -> None:
    model.graph.node[0].output[0] = "z"


def _graph_name(model: Any) -> None:
    model.graph.name += "2"


def _unknown_field(model: Any) -> None:
    # Field 1000, a string that no version of onnx knows.
    model.graph.node[0].MergeFromString(b"\xc2\x3e\x03abc")


CHANGES: tuple[Callable[[Any], None], ...] = (
    _weight, _string, _dims, _type, _initializer_name, _constant_name, _attribute, _attribute_name,
    _node_order, _subgraph, _subgraph_weight, _function, _function_opset, _sparse, _quantization, _opset,
    _ir_version, _input_shape, _input_name, _output_type, _op_type, _node_name, _node_domain, _node_input,
    _node_output, _graph_name, _unknown_field,
)  # fmt: skip


def changed(model: Any, change: Callable[[Any], None]) -> Any | None:
    """The model with a change; None where it has nothing to change in this way."""
    other = onnx.ModelProto()
    other.CopyFrom(model)
    try:
        change(other)
    except (StopIteration, IndexError, AssertionError):
        return None
    return other
