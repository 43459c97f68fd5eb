"""The first difference of two ONNX files in canonical form, in a sentence."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from perfgate.errors import PerfgateError, SpecError
from perfgate.model.content import refuse_lfs_pointer
from perfgate.model.graph_digest import canonical_bytes, canonical_fields, function_key, graph_digest

_SHOWN = 60  # characters of a value in a sentence
_VALUES = ("f", "i", "s", "floats", "ints", "strings")


def first_difference(one: Path, other: Path) -> str:
    """A sentence that names the first difference of two ONNX files; empty where they have one graph digest.

    Raises `SpecError` for a file that does not parse or whose external data cannot be read.
    """
    one, other = one.resolve(), other.resolve()
    folders = Folders(one.parent, other.parent)
    first, second = _load(one), _load(other)
    try:
        if graph_digest(first, one.parent) == graph_digest(second, other.parent):
            return ""
        return next(_of_models(first, second, folders), "the models differ")
    except PerfgateError:
        raise
    except Exception as error:  # protobuf raises its own kinds, by version
        raise SpecError(f"cannot be compared with {other.name}: {error}", where=one) from error


class Folders(NamedTuple):
    """Where the external data of two models lies."""

    one: Path
    other: Path


def _load(path: Path) -> Any:
    import onnx

    try:
        refuse_lfs_pointer(path)
        return onnx.load(str(path), load_external_data=False)
    except PerfgateError:
        raise
    except Exception as error:  # protobuf raises its own kinds, by version
        raise SpecError(f"does not parse as ONNX: {error}", where=path, fix="export it again") from error


def _of_models(one: Any, other: Any, folders: Folders) -> Iterator[str]:
    yield from _of_opsets(one, other)
    yield from _of_graphs(one.graph, other.graph, folders, "")
    yield from _of_functions(one, other, folders)
    yield from _of_fields(one, other, folders, "the model", without=("graph", "functions", "opset_import"))


def _of_opsets(one: Any, other: Any) -> Iterator[str]:
    first, second = ({o.domain or "ai.onnx": o.version for o in model.opset_import} for model in (one, other))
    for domain in sorted(first.keys() | second.keys()):
        yield from _unequal(f"opset {domain}", first.get(domain), second.get(domain))


def _of_graphs(one: Any, other: Any, folders: Folders, where: str) -> Iterator[str]:
    for kind in ("input", "output"):
        yield from _of_values(getattr(one, kind), getattr(other, kind), folders, f"{where}{kind}")
    yield from _of_nodes(one.node, other.node, folders, where)
    yield from _of_initializers(one.initializer, other.initializer, folders, where)
    done = ("input", "output", "node", "initializer")
    yield from _of_fields(one, other, folders, f"{where}graph", without=done)


def _of_values(one: Sequence[Any], other: Sequence[Any], folders: Folders, where: str) -> Iterator[str]:
    yield from _unequal(f"{where} count", len(one), len(other))
    for number, (first, second) in enumerate(zip(one, other, strict=False)):
        yield from _unequal(f"{where} {number} name", first.name, second.name)
        if canonical_bytes(first, folders.one) != canonical_bytes(second, folders.other):
            yield _sentence(f"{where} {first.name!r}", _type_text(first), _type_text(second))


def _type_text(value: Any) -> str:
    import onnx

    tensor = value.type.tensor_type
    names = onnx.TensorProto.DataType
    kind = names.Name(tensor.elem_type).lower() if tensor.elem_type in names.values() else tensor.elem_type
    axes = (d.dim_param or (d.dim_value if d.HasField("dim_value") else "?") for d in tensor.shape.dim)
    return f"{kind}[{', '.join(str(axis) for axis in axes)}]" if tensor.HasField("shape") else f"{kind}"


def _of_nodes(one: Sequence[Any], other: Sequence[Any], folders: Folders, where: str) -> Iterator[str]:
    for number, (first, second) in enumerate(zip(one, other, strict=False)):
        place = f"{where}node {number}"
        yield from _unequal(f"{place} operator", _operator(first), _operator(second))
        yield from _unequal(f"{place} name", first.name, second.name)
        place = f"{place} ({first.name or first.op_type})"
        for field in ("input", "output"):
            yield from _unequal(
                f"{place} {field}s", list(getattr(first, field)), list(getattr(second, field))
            )
        yield from _of_attributes(first.attribute, second.attribute, folders, place)
        done = ("op_type", "domain", "name", "input", "output", "attribute")
        yield from _of_fields(first, second, folders, place, without=done)
    yield from _unequal(f"{where}node count", len(one), len(other))


def _operator(node: Any) -> str:
    return f"{node.domain}::{node.op_type}" if node.domain else str(node.op_type)


def _of_attributes(one: Sequence[Any], other: Sequence[Any], folders: Folders, where: str) -> Iterator[str]:
    first, second = ({attribute.name: attribute for attribute in side} for side in (one, other))
    for name in sorted(first.keys() | second.keys()):
        place = f"{where} attribute {name!r}"
        if name not in first or name not in second:
            yield f"{place} is only in the {'first' if name in first else 'second'} file"
            continue
        ours, theirs = first[name], second[name]
        if canonical_bytes(ours, folders.one) != canonical_bytes(theirs, folders.other):
            for our_graph, their_graph in zip(
                [ours.g, *ours.graphs], [theirs.g, *theirs.graphs], strict=False
            ):
                yield from _of_graphs(our_graph, their_graph, folders, f"{place}: ")
            yield _sentence(place, *(_attribute_text(side) for side in (ours, theirs)))
    yield from _unequal(f"{where} attribute count", len(one), len(other))


def _attribute_text(attribute: Any) -> str:
    for field, value in attribute.ListFields():
        if field.name in _VALUES:
            return _short(list(value) if field.name.endswith("s") and field.name != "s" else value)
    return ""


def _of_initializers(one: Sequence[Any], other: Sequence[Any], folders: Folders, where: str) -> Iterator[str]:
    first, second = ({tensor.name: tensor for tensor in side} for side in (one, other))
    for name in sorted(first.keys() | second.keys()):
        place = f"{where}initializer {name!r}"
        if name not in first or name not in second:
            yield f"{place} is only in the {'first' if name in first else 'second'} file"
            continue
        ours, theirs = first[name], second[name]
        yield from _unequal(f"{place} type", ours.data_type, theirs.data_type)
        yield from _unequal(f"{place} dims", list(ours.dims), list(theirs.dims))
        if canonical_bytes(ours, folders.one) != canonical_bytes(theirs, folders.other):
            yield f"{place} has other values in the two files"
    yield from _unequal(f"{where}initializer count", len(one), len(other))


def _of_functions(one: Any, other: Any, folders: Folders) -> Iterator[str]:
    first, second = ({function_key(f): f for f in model.functions} for model in (one, other))
    for key in sorted(first.keys() | second.keys()):
        place = f"function {'::'.join(part for part in key if part)!r}"
        if key not in first or key not in second:
            yield f"{place} is only in the {'first' if key in first else 'second'} file"
            continue
        yield from _of_nodes(first[key].node, second[key].node, folders, f"{place}: ")
        yield from _of_fields(first[key], second[key], folders, place, without=("node",))
    yield from _unequal("function count", len(one.functions), len(other.functions))


def _of_fields(one: Any, other: Any, folders: Folders, where: str, without: tuple[str, ...]) -> Iterator[str]:
    """Any other field, which is named as the protobuf field is."""
    sides = [
        [entry for entry in canonical_fields(side, folder) if entry[1] not in without]
        for side, folder in ((one, folders.one), (other, folders.other))
    ]
    for first, second in zip_longest(*sides):
        if first != second:
            number, name, _ = min(entry for entry in (first, second) if entry)
            yield f"{where}: the field {name or number} differs"


def _unequal(what: str, one: object, other: object) -> Iterator[str]:
    if one != other:
        yield _sentence(what, _short(one), _short(other))


def _short(value: object) -> str:
    text = str(value) if not isinstance(value, str | bytes) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _sentence(what: str, one: str, other: str) -> str:
    """What differs, with both values where a reader can tell them apart."""
    if one == other or not (one and other):
        return f"{what} differs in the two files"
    return f"{what} is {one} in the first file and {other} in the second"
