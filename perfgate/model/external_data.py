"""The external data of an ONNX model: which files hold it, whether they may be read, and their parts."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from perfgate.errors import SpecError

_CHUNK = 1 << 20


def read_external_files(path: Path) -> list[Path]:
    """The external data files of an ONNX file. Raises as `external_files` does."""
    import onnx

    return external_files(path.parent, onnx.load(str(path), load_external_data=False))


def external_files(folder: Path, model: Any) -> list[Path]:
    """The files that hold external data of `model`, sorted by name. Raises as `external_file` does."""
    names = {_entries(tensor).get("location", "") for tensor in all_tensors(model) if is_external(tensor)}
    return [external_file(folder, name) for name in sorted(names)]


def external_file(folder: Path, name: str) -> Path:
    """A file of external data by its name in the model. Raises `SpecError` unless it is a regular file inside
    `folder` that is reached through no link."""
    path = folder / name
    parts = Path(name).parts
    steps = [folder / Path(*parts[: count + 1]) for count in range(len(parts))]
    if Path(name).is_absolute() or ".." in parts or any(step.is_symlink() for step in steps):
        raise SpecError(
            f"external data {name!r} leaves the model's folder",
            where=folder,
            fix="keep it beside the ONNX file",
        )
    if not path.is_file():
        raise SpecError(f"external data {name!r} is missing", where=folder, fix="put it beside the ONNX file")
    return path


def all_tensors(message: Any) -> Iterator[Any]:
    """Every `TensorProto` inside a protobuf message: initialisers, constants and sparse tensors, in subgraphs
    and functions too."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in [value] if hasattr(value, "ListFields") else value:
                yield from all_tensors(part)


def is_external(tensor: Any) -> bool:
    """Whether a tensor's content lies in a file of its own."""
    return bool(tensor.data_location == tensor.EXTERNAL)


def read_external(tensor: Any, folder: Path) -> Iterator[bytes]:
    """The content of a tensor with external data, in chunks. Raises `SpecError` for an offset or length that
    is no number or lies outside the file, and as `external_file` and `read_range` do."""
    entries = _entries(tensor)
    path = external_file(folder, entries.get("location", ""))
    try:
        offset = int(entries.get("offset") or 0)
        length = int(entries["length"]) if entries.get("length") else None
    except ValueError as error:
        raise SpecError(
            f"the offset or length of tensor {tensor.name!r} is not a number: {error}",
            where=path,
            fix="export the model again",
        ) from error
    return read_range(path, offset, length)


def read_range(path: Path, offset: int = 0, length: int | None = None) -> Iterator[bytes]:
    """The bytes of a file from `offset`, `length` of them or to its end, in chunks. Raises `SpecError` for a
    file that is not regular or too short, and `OSError` for a link or a file that cannot be read."""
    # O_NOFOLLOW: the file that was checked is the file that is read.
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as source:
        about = os.fstat(source.fileno())
        if not stat.S_ISREG(about.st_mode):
            raise SpecError("is not a regular file", where=path, fix="keep the data itself beside the model")
        left = about.st_size - offset if length is None else length
        if offset < 0 or left < 0 or offset + left > about.st_size:
            raise SpecError(
                f"has {about.st_size} bytes, and the model reads {left} bytes at offset {offset}",
                where=path,
                fix="copy the file again; it may be cut short",
            )
        source.seek(offset)
        while left:
            chunk = source.read(min(_CHUNK, left))
            if not chunk:
                raise SpecError("became shorter while it was read", where=path, fix="run again")
            left -= len(chunk)
            yield chunk


def _entries(tensor: Any) -> dict[str, str]:
    return {entry.key: entry.value for entry in tensor.external_data}
