"""PP-OCRv6 small text recogniser: one line of text to its characters. Trained; the weights come in a package.

The distribution rapidocr (Apache-2.0) carries the file; it is found by its metadata and never imported. Here
the batch gets a name, the image a fixed width, and the graph an opset that TensorRT 8.5 reads.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
from pathlib import Path

import onnx
from onnx import version_converter

FILE = "PP-OCRv6_rec_small.onnx"
SHA256 = "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"
HEIGHT, WIDTH = 48, 320
STEPS = WIDTH // 8


def weights_file() -> Path:
    """The file in the installed distribution, checked to be the very one."""
    files = importlib.metadata.files("rapidocr") or []
    path = Path(str(next(file for file in files if file.name == FILE).locate()))
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != SHA256:
        raise ValueError(f"{path} is {found}, not {SHA256}")
    return path


def characters() -> list[str]:
    """What each class of the output means: class 0 is the blank between characters."""
    model = onnx.load(str(weights_file()), load_external_data=False)
    listed = next(entry.value for entry in model.metadata_props if entry.key == "character")
    return ["", *listed.split("\n"), " "]


def write_onnx(path: str, seed: int) -> None:
    """Write the model: "x" float32 [b, 3, 48, 320] in -1 to 1, to "fetch_name_0" [b, 40, classes]."""
    model = onnx.load(str(weights_file()))
    _fix_shape(model.graph.input[0], ["b", 3, HEIGHT, WIDTH])
    _fix_shape(
        model.graph.output[0], ["b", STEPS, model.graph.output[0].type.tensor_type.shape.dim[2].dim_value]
    )
    del model.graph.value_info[:]
    model = version_converter.convert_version(model, 17)
    model.ir_version = 8
    Path(path).write_bytes(model.SerializeToString(deterministic=True))


def _fix_shape(value: onnx.ValueInfoProto, axes: list[str | int]) -> None:
    for dimension, axis in zip(value.type.tensor_type.shape.dim, axes, strict=True):
        dimension.Clear()
        if isinstance(axis, str):
            dimension.dim_param = axis
        else:
            dimension.dim_value = axis
