"""The content of an ONNX tensor as canonical bytes: one result for every way to store it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfgate.model.external_data import is_external, read_external

_CHUNK_VALUES = 1 << 18
_STRING = 8
_FLOAT6 = (27, 28)
# By `TensorProto.DataType`: the typed field that ONNX stores the type in, the type that holds every value of
# that field, and the little-endian type of the canonical bytes. The field holds 2 and 4 bits packed already.
_BYTE = ("int32_data", "i8", "u1")
_TYPED = {
    1: ("float_data", "f4", "<f4"),  # FLOAT
    2: _BYTE,  # UINT8
    3: _BYTE,  # INT8
    4: ("int32_data", "i8", "<u2"),  # UINT16
    5: ("int32_data", "i8", "<u2"),  # INT16
    6: ("int32_data", "i8", "<i4"),  # INT32
    7: ("int64_data", "i8", "<i8"),  # INT64
    9: _BYTE,  # BOOL
    10: ("int32_data", "i8", "<u2"),  # FLOAT16
    11: ("double_data", "f8", "<f8"),  # DOUBLE
    12: ("uint64_data", "u8", "<u4"),  # UINT32
    13: ("uint64_data", "u8", "<u8"),  # UINT64
    14: ("float_data", "f4", "<f4"),  # COMPLEX64
    15: ("double_data", "f8", "<f8"),  # COMPLEX128
    16: ("int32_data", "i8", "<u2"),  # BFLOAT16
    **dict.fromkeys(range(17, 29), _BYTE),  # FLOAT8, 4, 2 and 6 bits
}


def tensor_digest(tensor: Any, folder: Path) -> tuple[bytes, frozenset[str]]:
    """The SHA-256 of a tensor's canonical bytes, and the protobuf fields that only say how it is stored.

    `folder` is where external data lies, read in chunks. Raises as `read_external` does.
    """
    hashed = hashlib.sha256()
    storage = {"external_data", "data_location"}
    if is_external(tensor):
        chunks = read_external(tensor, folder)
    elif raw := tensor.raw_data:
        storage.add("raw_data")
        chunks = iter((raw,))
    elif tensor.data_type == _STRING:
        storage |= {"raw_data", "string_data"}
        chunks = _string_chunks(tensor.string_data)
    elif tensor.data_type in _TYPED:
        storage |= {"raw_data", _TYPED[tensor.data_type][0]}
        chunks = _typed_chunks(tensor)
    else:
        chunks = iter(())
    for chunk in chunks:
        hashed.update(chunk)
    return hashed.digest(), frozenset(storage)


def _string_chunks(strings: Any) -> Iterator[bytes]:
    """Each string after its length, so that no two lists of strings give the same bytes."""
    for text in strings:
        yield len(text).to_bytes(8, "little")
        yield text


def _typed_chunks(tensor: Any) -> Iterator[bytes]:
    import numpy as np

    field, holds, canonical = _TYPED[tensor.data_type]
    values = getattr(tensor, field)
    for start in range(0, len(values), _CHUNK_VALUES):
        chunk = np.array(values[start : start + _CHUNK_VALUES], dtype=holds).astype(canonical)
        yield (_packed_6_bits(chunk) if tensor.data_type in _FLOAT6 else chunk).tobytes()


def _packed_6_bits(values: Any) -> Any:
    """Values of 6 bits, four in three bytes, as ONNX packs them in `raw_data`."""
    import numpy as np

    groups = np.append(values & 0x3F, np.zeros(-len(values) % 4, dtype=np.uint8)).reshape(-1, 4)
    first, second, third, fourth = groups.astype(np.uint32).T
    whole = first | second << 6 | third << 12 | fourth << 18
    packed = whole.astype("<u4").view(np.uint8).reshape(-1, 4)[:, :3]
    return packed.reshape(-1)[: -(-len(values) * 6 // 8)]
