"""From two sides of a case to its explanation: layers, graph, and what differs around the engines, which is
machine, recipe, clocks and timing cache."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from perfgate.engine.interface import LayerTimes
from perfgate.engine.tensorrt.inspect import Layer, unpack_layers
from perfgate.errors import CaseError, SpecError
from perfgate.gate.explain.cause import Evidence, cause_of
from perfgate.gate.explain.graph_diff import GraphDiff, diff_graphs
from perfgate.gate.explain.graph_work import with_nodes
from perfgate.gate.explain.layer_groups import Group, Names, group_layers, is_opaque
from perfgate.gate.explain.layer_times import Timed, Times, weigh
from perfgate.gate.verdict.latency import lower_clock, sm_clock_mhz
from perfgate.measure.environment import differences
from perfgate.records import (
    Case,
    Difference,
    EngineFacts,
    Environment,
    Explanation,
    Facts,
    Launch,
    LayerChange,
    Recipe,
    Record,
)

_CACHE = re.compile(r"^timing cache: loaded (\d+) bytes, grew by (-?\d+)")
# Clocks are told as different from one percent on: a sample of NVML's is one of many within a launch.
_CLOCK_STEP = 0.01


class Side(Record, kw_only=True):
    """What is at hand of base or of head. `engine` and `onnx` are paths, empty where the file is not here;
    `launches` are those that the verdict rests on, with their telemetry."""

    engine: str = ""
    onnx: str = ""
    facts: EngineFacts | None = None
    recipe: Recipe | None = None
    environment: Environment | None = None
    launches: tuple[Launch, ...] = ()

    @property
    def gated_ns(self) -> float | None:
        """The geometric mean of launch medians, as the gate compares them."""
        if not self.launches:
            return None
        return math.exp(statistics.fmean(math.log(launch.median_ns) for launch in self.launches))


class Surroundings(Record):
    """All differences, and which of them are key: fields of the environment, of the toolchain."""

    all: tuple[Difference, ...] = ()
    environment: tuple[Difference, ...] = ()
    toolchain: tuple[Difference, ...] = ()


def compare_sides(base: Side, head: Side) -> Surroundings:
    """Every key and noted field, every field of the recipe, clocks, slowdowns and timing caches."""
    environment: tuple[Difference, ...] = ()
    noted: tuple[Difference, ...] = ()
    if base.environment and head.environment:
        environment = _prefixed("environment", base.environment.key, head.environment.key)
        noted = _prefixed("noted", base.environment.noted, head.environment.noted)
    recipe = differences(_flat(base.recipe), _flat(head.recipe)) if base.recipe and head.recipe else ()
    toolchain = tuple(
        d
        for d in recipe
        if d.field.startswith(("recipe.versions.", "recipe.options.", "recipe.profile."))
        or d.field
        in ("recipe.backend", "recipe.precision", "recipe.typing", "recipe.device", "recipe.plugins")
    )
    return Surroundings(
        all=(*environment, *noted, *recipe, *_clocks(base, head), *_timing(base, head))[:1000],
        environment=environment,
        toolchain=toolchain,
    )


def _prefixed(prefix: str, base: Facts, head: Facts) -> tuple[Difference, ...]:
    found = differences(base, head)
    return tuple(Difference(field=f"{prefix}.{d.field}"[:300], base=d.base, head=d.head) for d in found)


def _flat(recipe: Recipe) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in msgspec.to_builtins(recipe).items():
        if isinstance(value, dict):
            flat |= {f"recipe.{name}.{inner}"[:300]: str(found) for inner, found in value.items()}
        else:
            flat[f"recipe.{name}"] = str(value)
    return flat


def _clocks(base: Side, head: Side) -> list[Difference]:
    """Clocks that are more than a step apart, and what slowed either side down."""
    found = []
    clocks = [[mhz for x in side.launches if (mhz := sm_clock_mhz(x))] for side in (base, head)]
    if all(clocks):
        means = [statistics.fmean(side) for side in clocks]
        if abs(means[1] / means[0] - 1) > _CLOCK_STEP:
            found.append(Difference(field="clocks.sm_mhz", base=f"{means[0]:.0f}", head=f"{means[1]:.0f}"))
    slowdowns = [
        sorted({s for x in side.launches if x.telemetry for s in x.telemetry.slowdowns})
        for side in (base, head)
    ]
    if slowdowns[0] != slowdowns[1]:
        found.append(
            Difference(
                field="clocks.slowdowns",
                base=", ".join(slowdowns[0]) or "none",
                head=", ".join(slowdowns[1]) or "none",
            )
        )
    return found


def _timing(base: Side, head: Side) -> list[Difference]:
    """Timing caches: growth is all that TensorRT 8.5 shows of a miss."""
    said = [_growth(side.facts) for side in (base, head)]
    if said[0] == said[1] or not all(said):
        return []
    return [Difference(field="timing cache", base=said[0], head=said[1])]


def _growth(facts: EngineFacts | None) -> str:
    for note in facts.notes if facts else ():
        if found := _CACHE.match(note):
            loaded, grown = int(found[1]), int(found[2])
            if not loaded:
                return "none was loaded: every tactic was timed anew"
            return "every tactic was in it" if grown <= 0 else f"misses: it grew by {grown} bytes"
    return ""


Loads = tuple[Sequence[LayerTimes], Sequence[LayerTimes]]
_MOST = 1_000


def explain_case(
    case: Case, base: Side, head: Side, *, profile: Callable[[], Loads] | None = None
) -> Explanation:
    """Why head differs from base.

    `profile` takes the profiled loads of both sides (see `measure.profile.profile_sides`) and is called once,
    here; without it, or where it fails, layers are compared by what they are and no time is told.
    """
    unseen: list[str] = []
    graph = _graph(case, base, head, unseen)
    layers = _layers(base.facts, unseen, "base"), _layers(head.facts, unseen, "head")
    if graph.graphs:
        layers = with_nodes(layers[0], graph.graphs[0]), with_nodes(layers[1], graph.graphs[1])
    same_engine = bool(base.facts and head.facts and base.facts.digest == head.facts.digest)
    groups = group_layers(*layers, _names(graph)) if all(layers) else []
    loads = _loads(profile, unseen)
    times = weigh(groups, *([x.layers_ns for x in side] for side in loads)) if loads else None
    unseen += _not_seen(layers, times)
    around = compare_sides(base, head)
    gated = base.gated_ns, head.gated_ns
    ratio = gated[1] / gated[0] if gated[0] and gated[1] else None
    kind, sentence = cause_of(
        Evidence(
            times=times if groups else None,
            graph=graph.changes,
            toolchain=around.toolchain,
            environment=around.environment,
            clock=lower_clock(base.launches, head.launches, ratio) if ratio else "",
            gated_ratio=ratio,
            ignore=case.tolerance.ignore,
            same_engine=same_engine,
            differing_layers=sum(group.kind != "same" for group in groups) if groups else None,
            note=unseen[0] if unseen else "",
        )
    )
    return Explanation(
        kind=kind,
        cause=sentence,
        state_ratio=_rounded(times.state_ratio, 6) if times else None,
        profiled_base_ns=_rounded(times.profiled_base_ns) if times else None,
        profiled_head_ns=_rounded(times.profiled_head_ns) if times else None,
        gated_base_ns=_rounded(gated[0]),
        gated_head_ns=_rounded(gated[1]),
        unexplained_ns=_rounded(_unexplained(times, same_engine)) if times else None,
        matched_share=_rounded(times.matched_share, 4) if times else None,
        layers=_changes(groups, times, same_engine)[:_MOST],
        graph=graph.changes,
        differences=around.all,
        unseen=tuple(unseen[:_MOST]),
        base_engine=base.facts,
        base_recipe=base.recipe,
    )


def _graph(case: Case, base: Side, head: Side, unseen: list[str]) -> GraphDiff:
    if not (base.onnx and head.onnx):
        unseen.append("the ONNX files of both sides are not here, so their graphs were not compared")
        return GraphDiff()
    if base.recipe and head.recipe and base.recipe.onnx_digest == head.recipe.onnx_digest:
        return GraphDiff()
    try:
        return diff_graphs(Path(base.onnx), Path(head.onnx), sizes=case.shape)
    except (SpecError, OSError) as error:
        unseen.append(f"the graphs were not compared: {getattr(error, 'what', error)}"[:1000])
        return GraphDiff()


def _names(graph: GraphDiff) -> Names:
    only = {
        kind: frozenset(change.node for change in graph.changes if change.kind == kind)
        for kind in ("removed", "added")
    }
    return Names(graph.pairs, only["removed"], only["added"], graph.changed, graph.unsure)


def _layers(facts: EngineFacts | None, unseen: list[str], side: str) -> tuple[Layer, ...]:
    if facts is None or not facts.layer_record:
        unseen.append(f"{side}'s engine has no record of its layers")
        return ()
    try:
        found = unpack_layers(facts.layer_record)
    except ValueError as error:
        unseen.append(f"{side}'s layer record cannot be read: {error}")
        return ()
    if not found.detailed:
        unseen.append(f"{side}'s engine names its layers and tells no more: kernels and types are not known")
    return found.layers


def _loads(profile: Callable[[], Loads] | None, unseen: list[str]) -> Loads | None:
    if profile is None:
        unseen.append("no load was profiled, so no layer has a time")
        return None
    try:
        return profile()
    except CaseError as error:
        unseen.append(f"layers have no times: {error.what}"[:1000])
        return None


def _not_seen(layers: tuple[tuple[Layer, ...], ...], times: Times | None) -> list[str]:
    """What no inspector or profiler tells."""
    found = []
    for side, of_side in zip(("base", "head"), layers, strict=True):
        blocks = [layer.name for layer in of_side if is_opaque(layer)]
        if blocks:
            found.append(
                f"{side}: {len(blocks)} fused blocks of Myelin's, whose inside is not shown: "
                + ", ".join(blocks[:3])[:300]
            )
    if times and times.strangers:
        found.append(
            f"{len(times.strangers)} profiled names are in neither layer record: "
            + ", ".join(times.strangers[:3])[:300]
        )
    if times and times.state_ratio is None:
        found.append("too little is known to be unchanged to tell the state of a load, so none was removed")
    return found


def _changes(groups: Sequence[Group], times: Times | None, same_engine: bool) -> tuple[LayerChange, ...]:
    """The groups to show: all that differ in kind, and those of one kind whose time differs beyond its
    spread. An engine that is the same byte for byte has none: its layers cannot differ."""
    if same_engine:
        return ()
    if times is None:
        return tuple(_change(group, None, None) for group in groups if group.kind not in ("same", "resized"))
    shown = [t for t in times.groups if t.named or t.group.kind not in ("same", "resized")]
    shown.sort(key=lambda t: -abs(t.difference_ns) if t.named else 0.0)
    return tuple(_change(t.group, t, times) for t in shown)


def _change(group: Group, timed: Timed | None, times: Times | None) -> LayerChange:
    detail = group.detail
    moved: Literal["slower", "faster"] = "slower" if timed and timed.difference_ns > 0 else "faster"
    if timed and not timed.named:
        detail = f"{detail}; its time did not change beyond its spread".removeprefix("; ")
    share = None
    if timed and timed.named and times and times.slower:
        share = round(timed.difference_ns / times.slowdown_ns, 4)
    return LayerChange(
        kind=moved if group.kind == "same" or group.kind == "resized" else group.kind,
        base_layers=tuple(layer.name[:300] for layer in group.base),
        head_layers=tuple(layer.name[:300] for layer in group.head),
        onnx_nodes=tuple(node[:300] for node in group.nodes[:100]),
        base_ns=round(timed.base_ns, 1) if timed and group.base else None,
        head_ns=round(timed.head_ns, 1) if timed and group.head else None,
        spread_ns=round(timed.spread_ns, 1) if timed else 0.0,
        share=share,
        detail=detail,
    )


def _unexplained(times: Times, same_engine: bool) -> float:
    if same_engine:
        return times.slowdown_ns
    return times.slowdown_ns - sum(times.explained_ns(kind) for kind in ("same", *times.kinds))


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
