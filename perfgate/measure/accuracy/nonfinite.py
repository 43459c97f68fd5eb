"""Where NaN and infinity begin: `python -m perfgate.measure.accuracy.nonfinite REQUEST REPLY`, a child.

The case's own graph is looked into first, with every tensor watched and FP16 rounded where the graph says
so. A weakly typed engine may overflow where its graph does not: then the FP32 graph tells which tensor is
the first that FP16 cannot hold.
"""

from __future__ import annotations

from pathlib import Path

from perfgate.errors import CaseError
from perfgate.model.precision.data import DataRequest, DataSet
from perfgate.records import Record, Text
from perfgate.util.process import call_child, serve


class WhereRequest(Record, kw_only=True):
    emitted: Text
    onnx: Text
    data: DataRequest


class Where(Record):
    text: Text = ""


def where_nonfinite(request: WhereRequest, *, timeout_s: int) -> str:
    """The first layer in words, or why it is not known."""
    try:
        return call_child("perfgate.measure.accuracy.nonfinite", request, Where, timeout_s=timeout_s).text
    except CaseError as error:
        return f"not found out: {error.what}"


def _where(request: WhereRequest) -> Where:
    from perfgate.model.precision.probe import FP16_MAX, first_nonfinite, largest

    data = DataSet(request.data)
    found = first_nonfinite(Path(request.emitted), data)
    if found is not None:
        return Where(text=f"{found.node} ({found.operator})")
    for item in largest(Path(request.onnx), data):
        if item.value > FP16_MAX:
            reached = f"reaches {item.value:.3g} in FP32, and FP16 ends at {FP16_MAX:.0f}"
            return Where(text=f"{item.node} ({item.operator}), which {reached}")
    return Where(text="no layer of the graph on ONNX Runtime; the engine alone makes it")


if __name__ == "__main__":
    serve(WhereRequest, _where)
