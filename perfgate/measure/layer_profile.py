"""Profiled loads: fresh processes that say what each layer takes, apart from all that is timed.

`python -m perfgate.measure.layer_profile` is the process itself; `perfgate.util.process` has its protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from perfgate.engine import get_backend
from perfgate.engine.interface import LayerTimes
from perfgate.measure.launch import EngineTarget
from perfgate.model.inputs import make_array
from perfgate.records import InputData, Positive, Record
from perfgate.util.process import call_child, serve

# Three loads a side are the least that have a spread of their own; a GPU's luck is redrawn by each.
LEAST_LOADS = 3
LOADS = 5
QUERIES = 200


class ProfileRequest(Record):
    target: EngineTarget
    queries: Positive = QUERIES
    timeout_s: Positive = 300


def profile(request: ProfileRequest) -> LayerTimes:
    """One profiled load. Raises `CaseError` when the process fails or the backend has no profiler."""
    return call_child("perfgate.measure.layer_profile", request, LayerTimes, timeout_s=request.timeout_s)


def profile_sides(
    base: ProfileRequest,
    head: ProfileRequest,
    *,
    loads: int = LOADS,
    one: Callable[[ProfileRequest], LayerTimes] = profile,
) -> tuple[list[LayerTimes], list[LayerTimes]]:
    """`loads` profiled loads a side, in turn, the order swapped each time, so that drift hits both alike."""
    sides: dict[str, list[LayerTimes]] = {"base": [], "head": []}
    requests = {"base": base, "head": head}
    for number in range(max(loads, LEAST_LOADS)):
        for side in ("base", "head") if number % 2 == 0 else ("head", "base"):
            sides[side].append(one(requests[side]))
    return sides["base"], sides["head"]


def _serve(request: ProfileRequest) -> LayerTimes:
    target = request.target
    backend = get_backend(target.case.backend, target.device)
    folder = Path(target.folder)
    return backend.profile(
        Path(target.engine),
        target.case,
        lambda tensor: make_array(tensor, target.case.inputs.get(tensor.name, InputData()), folder),
        queries=request.queries,
        axes=target.axes,
    )


if __name__ == "__main__":
    serve(ProfileRequest, _serve)
