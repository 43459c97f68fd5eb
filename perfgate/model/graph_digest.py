"""The graph digest: SHA-256 over a canonical form of an ONNX model, which identifies the model.

The canonical form leaves out what changes no result and differs between two exports of one model: doc
strings, metadata, the producer, the model's version and domain, inferred shapes, and how tensors are stored.
Lists that are maps are sorted. All else counts, also protobuf fields that this version of onnx does not know.

Every message is encoded as its fields by number, each with its length. A value of more than a few kilobytes
is replaced by its SHA-256, so that the encoding of a model is short and no weight is copied twice.
"""

from __future__ import annotations

import hashlib
import math
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from perfgate.model.tensor_content import tensor_digest

# Raised when one model would get another digest.
FORMAT = 1
_INLINE_BYTES = 4096
_LEFT_OUT = {"doc_string", "metadata_props"}
_LEFT_OUT_OF = {
    "ModelProto": {"producer_name", "producer_version", "model_version", "domain"},
    "GraphProto": {"value_info"},
    "FunctionProto": {"value_info"},
}
_MAP_KEYS: dict[str, Callable[[Any], Any]] = {
    "ModelProto.opset_import": lambda one: one.domain,
    "ModelProto.functions": lambda one: function_key(one),
    "GraphProto.initializer": lambda one: one.name,
    "GraphProto.sparse_initializer": lambda one: one.values.name,
    "GraphProto.quantization_annotation": lambda one: one.tensor_name,
    "TensorAnnotation.quant_parameter_tensor_names": lambda one: one.key,
    "NodeProto.attribute": lambda one: one.name,
    "FunctionProto.opset_import": lambda one: one.domain,
    "FunctionProto.attribute": lambda one: one,
    "FunctionProto.attribute_proto": lambda one: one.name,
}


def graph_digest(model: Any, folder: Path) -> str:
    """The graph digest of a loaded model, whose external data lies in `folder`. Raises `SpecError` for
    external data that is missing, too short or outside the folder, and `OSError` where it cannot be read."""
    return hashlib.sha256(b"perfgate ONNX graph %d\n" % FORMAT + canonical_bytes(model, folder)).hexdigest()


def function_key(function: Any) -> tuple[str, str, str]:
    """What names a function of a model."""
    return function.domain, function.name, getattr(function, "overload", "")


def canonical_bytes(message: Any, folder: Path) -> bytes:
    """A message of a model in canonical form: equal for two messages that say the same. Raises as
    `graph_digest` does."""
    fields = canonical_fields(message, folder)
    return b"".join(b"F" + number.to_bytes(4, "little") + data for number, _, data in fields)


def canonical_fields(message: Any, folder: Path) -> Iterator[tuple[int, str, bytes]]:
    """The fields of a message that count, as number, name and canonical bytes; a field that this version of
    onnx does not know has no name. Raises as `graph_digest` does."""
    kind = message.DESCRIPTOR.name
    left_out = _LEFT_OUT | _LEFT_OUT_OF.get(kind, set())
    if kind == "TensorProto":
        content, storage = tensor_digest(message, folder)
        left_out |= storage
        yield 0, "content", content
        present = _fields_without(message, left_out)
    else:
        present = message.ListFields()
    for field, value in present:
        if field.name in left_out or _says_nothing(message, field, value):
            continue
        if _is_repeated(field):
            yield field.number, field.name, _repeated(value, _MAP_KEYS.get(f"{kind}.{field.name}"), folder)
        else:
            yield field.number, field.name, _value(value, folder)
    for unknown in _unknown_fields(message):
        yield unknown.field_number, "", _unknown(unknown)


def _fields_without(message: Any, left_out: set[str]) -> Iterator[tuple[Any, Any]]:
    """`ListFields` that never touches what is left out: reading a field of bytes copies it."""
    for field in sorted(message.DESCRIPTOR.fields, key=lambda one: one.number):
        if field.name not in left_out:
            value = getattr(message, field.name)
            if len(value) if _is_repeated(field) else message.HasField(field.name):
                yield field, value


def _is_repeated(field: Any) -> bool:
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


def _says_nothing(message: Any, field: Any, value: Any) -> bool:
    """Whether a field holds its default, which says the same as no field. Of alternatives, and of an
    attribute without a type, the field that is there says which one is meant."""
    if isinstance(value, float) and math.copysign(1, value) < 0:
        return False
    if not isinstance(value, str | bytes | int | float) or value != field.default_value:
        return False
    untyped = message.DESCRIPTOR.name == "AttributeProto" and not message.type and field.name != "type"
    return field.containing_oneof is None and (not untyped or field.name in ("name", "ref_attr_name"))


def _repeated(values: Any, map_key: Callable[[Any], Any] | None, folder: Path) -> bytes:
    first = values[0]
    if isinstance(first, float):
        data = struct.pack(f"<{len(values)}d", *values)
    elif isinstance(first, int):
        data = ",".join(map(str, values)).encode()
    elif map_key is None:
        data = b"".join(_value(value, folder) for value in values)
    else:
        data = b"".join(data for _, data in sorted((map_key(one), _value(one, folder)) for one in values))
    return b"R" + len(values).to_bytes(8, "little") + _framed(data)


def _value(value: Any, folder: Path) -> bytes:
    if isinstance(value, str):
        return _framed(value.encode())
    if isinstance(value, bytes):
        return _framed(value)
    if isinstance(value, float):
        return _framed(struct.pack("<d", value))
    if isinstance(value, int):
        return _framed(str(int(value)).encode())
    return _framed(canonical_bytes(value, folder))


def _framed(data: bytes) -> bytes:
    """The data after its length, or its SHA-256 where it is long: the end is known either way."""
    if len(data) > _INLINE_BYTES:
        return b"H" + hashlib.sha256(data).digest()
    return b"D" + len(data).to_bytes(2, "little") + data


def _unknown_fields(message: Any) -> Any:
    try:
        from google.protobuf.unknown_fields import UnknownFieldSet
    except ImportError:  # protobuf before 4.22
        return message.UnknownFields()
    return UnknownFieldSet(message)


def _unknown(field: Any) -> bytes:
    """An unknown field with its wire type; a group holds fields itself."""
    data = field.data
    if isinstance(data, bytes):
        encoded = data
    elif isinstance(data, int):
        encoded = str(data).encode()
    else:
        encoded = b"".join(one.field_number.to_bytes(4, "little") + _unknown(one) for one in data)
    return b"U" + bytes([field.wire_type]) + _framed(encoded)
