"""Engine-inspector JSON of TensorRT 8.5 to 11 as layer records. Pure: imports no TensorRT."""

from __future__ import annotations

import base64
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from perfgate.records import Count, Precision, Record, Text

# How the versions spell an element type, and how we do.
_TYPES = {
    "fp32": "fp32", "float": "fp32", "float32": "fp32",
    "fp16": "fp16", "half": "fp16", "float16": "fp16",
    "bf16": "bf16", "bfloat16": "bf16",
    "fp8": "fp8", "fp8e4m3fn": "fp8", "float8": "fp8", "e8m0": "e8m0",
    "fp4": "fp4", "fp4e2m1": "fp4",
    "int64": "int64", "int32": "int32", "int8": "int8", "int4": "int4", "uint8": "uint8",
    "bool": "bool",
}  # fmt: skip
_DATATYPE_KEYS = ("Datatype", "DataType", "Format/Datatype", "Format/DataType", "Format")
# Layers that move or hold data and compute nothing: they say nothing about the precision of the work.
_MOVES = {
    "reformat", "noop", "constant", "copy", "signal", "wait", "shapehosttodevice", "devicetoshapehost",
    "shapedevicetohost", "shape_call", "shuffle", "slice", "concat", "identity",
}  # fmt: skip
_WANTED = {"fp32": ("fp32",), "fp16": ("fp16",), "int8": ("int8",), "int8+fp16": ("int8", "fp16")}
_STORED_BITS = {"int8": 8, "fp16": 16, "fp32": 32}
# What a builder may store weights as: FP32 always, and what was asked for.
_STORED_KINDS = {
    "fp32": ("int8", "fp16", "fp32"),  # whatever the graph has
    "fp16": ("fp16", "fp32"),
    "int8": ("int8", "fp32"),
    "int8+fp16": ("int8", "fp16", "fp32"),
}
_TELLING_WEIGHTS = 1_000_000
UNPACKED_LIMIT_BYTES = 32 << 20
_BAD_NUMBER = re.compile(r"(?<=[:\[,])(\s*)-?(?:nan|inf)(?:inity)?(?=\s*[,}\]])", re.IGNORECASE)


class Layer(Record):
    """One layer of a built engine.

    `precision` is the type of its weights where it has any, otherwise of its first output; it is empty
    where the engine does not say. `onnx_nodes` are the nodes of the graph that went into it, `shapes` the
    dimensions of its outputs.
    """

    name: Text
    type: Text = ""
    tactic: Text = ""
    tactic_value: Text = ""
    precision: Text = ""
    formats: tuple[Text, ...] = ()
    onnx_nodes: tuple[Text, ...] = ()
    weights: dict[str, Count] = {}
    shapes: tuple[tuple[int, ...], ...] = ()

    @property
    def computes(self) -> bool:
        """Whether it does arithmetic, as opposed to moving data."""
        return self.type.lower() not in _MOVES


class Layers(Record):
    """All layers of an engine; `detailed` is False for an engine built without detailed verbosity."""

    schema: Literal["perfgate-trt/layers/v1"] = "perfgate-trt/layers/v1"
    detailed: bool = False
    layers: tuple[Layer, ...] = ()


def read_layers(text: str) -> Layers:
    """The inspector's JSON of any version as records. Raises `ValueError` where it is not JSON.

    Accepts a list or an object with `Layers` or `layers`; entries that are only names become layers with
    a name and nothing else.
    """
    # TensorRT prints C's nan and inf, which JSON does not have.
    data = json.loads(_BAD_NUMBER.sub(r"\1null", text))
    entries = data.get("Layers", data.get("layers", [])) if isinstance(data, dict) else data
    if not isinstance(entries, list):
        raise ValueError("the layers are not a list")
    detailed = any(isinstance(entry, dict) for entry in entries)
    return Layers(detailed=detailed, layers=tuple(_layer(entry) for entry in entries))


def pack_layers(layers: Layers) -> str:
    """The layers as zlib-compressed JSON in base64, for a results file."""
    return base64.b64encode(zlib.compress(msgspec.json.encode(layers, order="sorted"), 9)).decode()


def unpack_layers(packed: str) -> Layers:
    """The inverse of `pack_layers`, bounded. Raises `ValueError` for anything else."""
    inflate = zlib.decompressobj()
    try:
        data = inflate.decompress(base64.b64decode(packed, validate=True), UNPACKED_LIMIT_BYTES)
        if inflate.unconsumed_tail or not inflate.eof:
            raise ValueError("the layer record is cut short or too large")
        return msgspec.json.decode(data, type=Layers)
    except (zlib.error, msgspec.MsgspecError) as error:
        raise ValueError(f"not a layer record: {error}") from error


def _layer(entry: object) -> Layer:
    if not isinstance(entry, dict):
        return Layer(name=str(entry), onnx_nodes=_nodes(str(entry), ""))
    name = str(entry.get("Name", ""))
    outputs = [output for output in entry.get("Outputs", []) if isinstance(output, dict)]
    weights = Counter[str]()
    for kind, count in _weights(entry):
        weights[kind] += count
    computed = weights.most_common(1)[0][0] if weights else ""
    stated = (element_type(str(one.get(key, ""))) for one in outputs[:1] for key in _DATATYPE_KEYS)
    return Layer(
        name=name,
        type=str(entry.get("LayerType", "")),
        tactic=str(entry.get("TacticName", "")),
        tactic_value=str(entry.get("TacticValue", "")),
        precision=computed or next(filter(None, stated), ""),
        formats=tuple(str(output.get("Format/Datatype", output.get("Format", ""))) for output in outputs),
        onnx_nodes=_nodes(name, str(entry.get("Metadata", ""))),
        weights=dict(weights),
        shapes=tuple(_dimensions(output.get("Dimensions")) for output in outputs),
    )


def _dimensions(found: object) -> tuple[int, ...]:
    return tuple(axis for axis in found if isinstance(axis, int)) if isinstance(found, list) else ()


def element_type(text: str) -> str:
    """`fp16` for `Half` or `Channel major FP16 format where channel % 8 == 0`; empty where none is named."""
    for word in re.findall(r"[A-Za-z][A-Za-z0-9]*", text):
        found = _TYPES.get(word.lower()) or _TYPES.get(word.lower().removeprefix("k"))
        if found:
            return found
    return ""


def _weights(entry: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    for key, value in entry.items():
        # A bias is left out: it stays in FP32 or INT32 beside INT8 weights.
        if key != "Bias" and isinstance(value, dict) and isinstance(value.get("Count"), int):
            kind = element_type(str(value.get("Type", "")))
            if kind and value["Count"] > 0:
                yield kind, value["Count"]


def _nodes(name: str, metadata: str) -> tuple[str, ...]:
    named = re.findall(r"\[ONNX Layer: ([^\]\x1e]*)\]", metadata)
    if named:
        return tuple(dict.fromkeys(named))
    if name.startswith(("Reformatting CopyNode", "{ForeignNode")):
        inside = re.search(r"\{ForeignNode\[(.*)\]\}", name)
        return tuple(inside[1].split("...")) if inside else ()
    # 8.x has no metadata but joins the fused nodes' names: `PWN(PWN(a), b) + c`.
    bare = re.sub(r"\b(?:PWN|POINTWISE)\(|[()]", "", name)
    return tuple(part.strip() for part in re.split(r" \+ |, | \|\| ", bare) if part.strip())


def layer_share(layers: Iterable[Layer]) -> dict[str, float]:
    """The share of computing layers by element type; empty where no layer names one."""
    return shares(Counter(layer.precision for layer in layers if layer.computes and layer.precision))


def weight_share(layers: Iterable[Layer]) -> dict[str, float]:
    """The share of weights (elements) by element type."""
    total: Counter[str] = Counter()
    for layer in layers:
        total.update(layer.weights)
    return shares(total)


def stored_share(engine_bytes: int, weights: int, precision: Precision) -> dict[str, float]:
    """The types that an engine's weights are stored in, told from its size; empty where that says too little.

    For engines whose layers are one opaque block, such as a transformer that Myelin compiled: `weights`
    elements of 32, 16 or 8 bits make almost all of a large engine, so the bits an element say which. Kernels
    and tables may add a quarter; below a million weights they would drown them. Between the two narrowest
    widths that `precision` allows, all that is beyond the narrower one counts as weights of the wider, so the
    narrower has at least this share, (wider - bits) / (wider - narrower), if every weight is stored once or
    more. Some are not in some engines: less than half tells nothing.
    """
    if weights < _TELLING_WEIGHTS:
        return {}
    bits, kinds = engine_bytes * 8 / weights, _STORED_KINDS[precision]
    for kind in kinds:
        if _STORED_BITS[kind] * 0.9 <= bits <= _STORED_BITS[kind] * 1.25:
            return {kind: 1.0}
    narrow, wide = kinds[:2]
    least = (_STORED_BITS[wide] - bits) / (_STORED_BITS[wide] - _STORED_BITS[narrow])
    if precision == "fp32" or not 0.5 <= least < 1:
        return {}
    return {narrow: round(least, 4), wide: round(1 - least, 4)}


def shares(counts: Mapping[str, int]) -> dict[str, float]:
    """Counts as shares of their sum."""
    total = sum(counts.values())
    return {kind: round(count / total, 4) for kind, count in sorted(counts.items()) if total}


def realised(precision: Precision, share: Mapping[str, float], *, least: float = 0.0) -> str | None:
    """Why an engine is not of the precision that was asked for, or None.

    `share` is `EngineFacts.precision_share`; `least` the smallest share of layers that the asked types
    together may have. An asked type without a single layer always is a reason.
    """
    if not share:
        # A builder that was allowed nothing less computes in FP32, also where the engine does not say so.
        what = f"{precision.upper()} was asked for and the engine does not say what it computes in"
        return None if precision == "fp32" else what
    said = ", ".join(f"{kind} {part:.0%}" for kind, part in sorted(share.items()))
    # FP16 beside INT8 is for what is not quantised: where nothing is left there need be none.
    needed = ("int8",) if precision == "int8+fp16" else _WANTED[precision]
    missing = [kind for kind in needed if not share.get(kind)]
    if missing:
        return f"{precision.upper()} was asked for and no layer computes in {' or '.join(missing)} ({said})"
    lower = [kind for kind in ("fp16", "bf16", "int8", "fp8") if share.get(kind)]
    if precision == "fp32" and lower:
        return f"FP32 was asked for and some layers compute in {' and '.join(lower)} ({said})"
    total = sum(share.get(kind, 0.0) for kind in _WANTED[precision])
    if total < least:
        return f"{precision.upper()} was asked for at {least:.0%} of the layers or more ({said})"
    return None
