"""The graph digest: what changes it, and what does not."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from graph_strategies import CHANGES, changed, models, tensor, written_otherwise
from hypothesis import HealthCheck, assume, given, settings, strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx_files import FLOAT, model, write

from perfgate.errors import SpecError
from perfgate.model.graph import read_graph
from perfgate.model.graph_difference import first_difference
from perfgate.model.graph_digest import graph_digest

HERE = Path()


def one_of(*weights: Any) -> str:
    return graph_digest(model(weights=weights), HERE)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(made=models(), seed=st.integers(0, 1 << 30))
def test_notes_and_storage_and_the_order_of_maps_do_not_count(made: Any, seed: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        other = written_otherwise(made, seed, folder)
        assert graph_digest(other, folder) == graph_digest(made, HERE)
        write(folder / "one.onnx", made)
        write(folder / "other.onnx", other)
        assert first_difference(folder / "one.onnx", folder / "other.onnx") == ""


@settings(
    deadline=None,
    max_examples=150,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
@given(made=models(), change=st.sampled_from(CHANGES), seed=st.integers(0, 1 << 30))
def test_every_change_counts_however_it_is_written(made: Any, change: Callable[..., None], seed: int) -> None:
    other = changed(made, change)
    assume(other is not None)
    assert graph_digest(other, HERE) != graph_digest(made, HERE)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if change.__name__ not in ("_dims", "_type"):  # onnx itself cannot store those otherwise
            again = written_otherwise(other, seed, folder)
            assert graph_digest(again, folder) == graph_digest(other, HERE)
        write(folder / "one.onnx", made)
        write(folder / "other.onnx", other)
        assert first_difference(folder / "one.onnx", folder / "other.onnx") != ""


@pytest.mark.parametrize("kind", sorted(set(TensorProto.DataType.values()) - {0, TensorProto.STRING}))
def test_a_tensor_of_every_type_has_one_digest_in_raw_and_typed_fields(kind: int) -> None:
    values = np.array([1, 0, 1, 1, 0, 1, 1], np.float32)
    typed = helper.make_tensor("w", kind, [7], values)
    assert not typed.raw_data
    raw = numpy_helper.from_array(numpy_helper.to_array(typed), "w")
    assert raw.raw_data
    assert raw.data_type == kind
    assert one_of(typed) == one_of(raw)
    assert one_of(typed) != one_of(helper.make_tensor("w", kind, [7], values[::-1]))


@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (TensorProto.INT8, "int32_data"),
        (TensorProto.INT64, "int64_data"),
        (TensorProto.UINT64, "uint64_data"),
        (TensorProto.FLOAT, "float_data"),
        (TensorProto.DOUBLE, "double_data"),
    ],
)
def test_extreme_values_have_one_digest_in_raw_and_typed_fields(kind: int, field: str) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    info = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    more = [np.nan, np.inf, -0.0] if dtype.kind == "f" else []
    raw = numpy_helper.from_array(np.array([info.min, info.max, *more], dtype), "w")
    typed = helper.make_tensor("w", kind, raw.dims, numpy_helper.to_array(raw))
    assert len(getattr(typed, field)) == len(more) + 2
    assert one_of(typed) == one_of(raw)


def test_where_one_string_ends_counts() -> None:
    words = (["ab", "c"], ["a", "bc"], ["abc", ""], ["", "abc"])
    assert len({one_of(helper.make_tensor("w", TensorProto.STRING, [2], w)) for w in words}) == 4


def test_values_in_another_field_than_the_type_has_count() -> None:
    weight = tensor(0, "w", TensorProto.FLOAT, 2)
    before = one_of(weight)
    weight.int64_data.append(3)
    assert one_of(weight) != before


def test_a_default_that_is_written_out_says_nothing() -> None:
    made = model()
    node = made.graph.node[0]
    node.attribute.append(helper.make_attribute("axis", 0))
    before = graph_digest(made, HERE)
    node.domain = node.name = node.overload = ""
    assert node.HasField("overload")
    node.attribute[0].ref_attr_name = ""
    assert graph_digest(made, HERE) == before
    node.attribute[0].ClearField("i")
    assert graph_digest(made, HERE) == before


def test_a_zero_that_says_something_counts() -> None:
    unnamed, empty, negative = (model({"x": (FLOAT, [size])}) for size in (None, 0, 0))
    assert graph_digest(unnamed, HERE) != graph_digest(empty, HERE)
    empty.graph.node[0].attribute.append(helper.make_attribute("alpha", 0.0))
    negative.graph.node[0].attribute.append(helper.make_attribute("alpha", -0.0))
    assert graph_digest(empty, HERE) != graph_digest(negative, HERE)
    scalar, unranked = model({"x": (FLOAT, [])}), model({"x": (FLOAT, [])})
    unranked.graph.input[0].type.tensor_type.ClearField("shape")
    assert graph_digest(scalar, HERE) != graph_digest(unranked, HERE)


def test_the_zero_of_an_attribute_without_a_type_says_which_kind_it_is() -> None:
    digests = set()
    for field in ("i", "f", "s"):
        made = model()
        attribute = made.graph.node[0].attribute.add(name="axis")
        setattr(attribute, field, b"" if field == "s" else 0)
        digests.add(graph_digest(made, HERE))
    assert len(digests) == 3


def test_a_long_attribute_counts_to_its_end() -> None:
    long = [model() for _ in range(3)]
    for number, made in enumerate(long):
        text = "a" * 10_000 + str(number % 2)
        made.graph.node[0].attribute.append(helper.make_attribute("blob", text))
    one, other, again = (graph_digest(made, HERE) for made in long)
    assert one == again != other


def test_unknown_fields_of_every_wire_type_count() -> None:
    # Field 1000: a varint, 8 bytes, a string, a group with a varint in it, 4 bytes.
    wires = (
        b"\xc0\x3e\x05", b"\xc1\x3e" + b"12345678", b"\xc2\x3e\x02ab", b"\xc3\x3e\x08\x01\xc4\x3e",
        b"\xc5\x3e" + b"1234", b"\xc3\x3e\x08\x02\xc4\x3e", b"",
    )  # fmt: skip
    digests = set()
    for wire in wires:
        made = model()
        made.graph.MergeFromString(wire)
        digests.add(graph_digest(made, HERE))
    assert len(digests) == len(wires)


def test_two_folders_with_other_comments_and_traces_give_one_digest(tmp_path: Path) -> None:
    graphs = []
    for name, line in (("here", 3), ("there", 4)):
        made = model(weights=[tensor(1, "w", TensorProto.FLOAT, 3)])
        trace = f'File "{tmp_path / name}/net.py", line {line}, in forward'
        made.graph.node[0].metadata_props.add(key="pkg.torch.onnx.stack_trace", value=trace)
        made.graph.node[0].doc_string = made.doc_string = trace
        (tmp_path / name).mkdir()
        graphs.append(read_graph(write(tmp_path / name / "net.onnx", made)))
    one, other = graphs
    assert one.onnx_digest == other.onnx_digest
    assert one.file_digest != other.file_digest


def external(folder: Path, *ranges: tuple[int, int | None], content: bytes = b"") -> Any:
    """A model with a tensor for each range of one file."""
    (folder / "weights").write_bytes(content)
    made = model()
    for number, (offset, length) in enumerate(ranges):
        one = made.graph.initializer.add(name=f"w{number}", data_type=TensorProto.UINT8, dims=[4])
        one.data_location = TensorProto.EXTERNAL
        one.external_data.add(key="location", value="weights")
        one.external_data.add(key="offset", value=str(offset))
        if length is not None:
            one.external_data.add(key="length", value=str(length))
    return made


def test_a_tensor_counts_by_its_own_part_of_a_file(tmp_path: Path) -> None:
    content = b"1111..2222"
    made = external(tmp_path, (0, 4), (6, None), content=content)
    inside = model(
        weights=[
            helper.make_tensor("w0", TensorProto.UINT8, [4], b"1111", raw=True),
            helper.make_tensor("w1", TensorProto.UINT8, [4], b"2222", raw=True),
        ]
    )
    before = graph_digest(made, tmp_path)
    assert before == graph_digest(inside, HERE)
    (tmp_path / "weights").write_bytes(b"1111--2222")
    assert graph_digest(made, tmp_path) == before
    (tmp_path / "weights").write_bytes(b"1111--2223")
    assert graph_digest(made, tmp_path) != before


@pytest.mark.parametrize("part", [(8, 4), (11, 0), (0, 11), (-1, 4), (0, -1), (11, None)])
def test_external_data_that_is_too_short_is_refused(tmp_path: Path, part: tuple[int, int | None]) -> None:
    path = write(tmp_path / "net.onnx", external(tmp_path, part, content=b"1111..2222"))
    with pytest.raises(SpecError, match=r"weights: has 10 bytes, and the model reads"):
        read_graph(path)


def test_an_offset_that_is_no_number_is_refused(tmp_path: Path) -> None:
    made = external(tmp_path, (0, 4), content=b"1111")
    made.graph.initializer[0].external_data[1].value = "x"
    with pytest.raises(SpecError, match="of tensor 'w0' is not a number"):
        read_graph(write(tmp_path / "net.onnx", made))


@pytest.mark.parametrize("place", ["sparse", "function"])
def test_external_data_of_every_place_is_kept_in_the_folder(tmp_path: Path, place: str) -> None:
    made = external(tmp_path, (0, 4), content=b"1111")
    moved = onnx.TensorProto()
    moved.CopyFrom(made.graph.initializer[0])
    moved.external_data[0].value = "../secret"
    (tmp_path.parent / "secret").write_bytes(b"1111")
    if place == "sparse":
        made.graph.sparse_initializer.add().values.CopyFrom(moved)
    else:
        node = helper.make_node("Constant", [], ["c"], value=moved)
        made.functions.append(helper.make_function("own", "F", [], ["c"], [node], made.opset_import))
    with pytest.raises(SpecError, match="leaves the model's folder"):
        read_graph(write(tmp_path / "net.onnx", made))


def test_the_digest_is_the_same_in_every_version() -> None:
    # Another value here makes every stored digest another: raise FORMAT with it.
    made = model(weights=[tensor(0, "w", TensorProto.FLOAT, 3)])
    made.graph.node[0].attribute.append(helper.make_attribute("scales", [1.0, 2.0]))
    assert graph_digest(made, HERE) == "e798b963b7e7b9ff0df05162c74eed473fbd2f8450059fc39503314af42481cb"
