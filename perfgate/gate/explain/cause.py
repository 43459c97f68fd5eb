"""One sentence for why a case is slower, and only where the evidence carries it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from perfgate.gate.explain.layer_times import Timed, Times
from perfgate.records import Cause, Difference, GraphChange

# A cause that explains less than half of a slowdown is not its cause.
CARRIES = 0.5
_NAMED = 3
_NAME = 70
_FAMILIES: dict[str, Cause] = {
    "un-fused": "un-fused",
    "appeared": "new-layers",
    "precision": "precision",
    "kernel": "kernel",
    "resized": "changed-layers",
    "fused": "kernel",
    "vanished": "kernel",
    "reformat": "reformat",
}
# Reformats follow from these: they are told beside them, and not as a cause of their own.
_LEADING: tuple[Cause, ...] = ("precision", "un-fused", "new-layers")


class Evidence(NamedTuple):
    """All that a cause can rest on. `times` is None where no load was profiled; `differing_layers` counts the
    groups that are not the same in kind, None where layers are not known. `clock` says in words who clocked
    lower; `gated_ratio` is head by base as judged; `toolchain` and `environment` are key differences."""

    times: Times | None
    graph: Sequence[GraphChange]
    toolchain: Sequence[Difference]
    environment: Sequence[Difference]
    clock: str
    gated_ratio: float | None
    ignore: float
    same_engine: bool
    differing_layers: int | None
    note: str = ""


def cause_of(evidence: Evidence) -> tuple[Cause, str]:
    """The kind of cause and its sentence."""
    times = evidence.times
    if times is not None and times.slower and not evidence.same_engine:
        return _of_a_slowdown(evidence, times)
    if evidence.clock:
        return "clock/power", f"clock: {evidence.clock}; no layer is slower once that is removed"
    gated_slower = evidence.gated_ratio is not None and evidence.gated_ratio > 1 + evidence.ignore
    groups = times.groups if times and not evidence.same_engine else ()
    changed = [t for t in groups if t.group.kind != "same" or t.named]
    if gated_slower and not changed and (evidence.environment or evidence.toolchain):
        said = ", ".join(
            f"{d.field} {d.base} → {d.head}" for d in [*evidence.environment, *evidence.toolchain][:_NAMED]
        )
        return "environment", f"environment: {said}; no layer is slower beyond its own spread"
    if changed and not gated_slower:
        family, members = _most(changed, evidence)
        return family, f"{_phrase(family, members)}; profiled loads are no slower beyond their spread"
    layers_differ = not evidence.same_engine and evidence.differing_layers != 0
    if changed or layers_differ or evidence.graph or evidence.environment or evidence.toolchain:
        return "not-explained", _unexplained(evidence, times)
    what = "the same engine, byte for byte" if evidence.same_engine else "the same graph and the same layers"
    seen = "no layer is slower beyond its own spread" if times else "no load was profiled"
    return "nothing-changed", f"nothing changed: {what}; {seen}"


def _of_a_slowdown(evidence: Evidence, times: Times) -> tuple[Cause, str]:
    sums: dict[Cause, float] = defaultdict(float)
    for kind, together in times.kinds.items():
        sums[_family(together, evidence)] += times.explained_ns(kind)
    reformat = sums.get("reformat", 0.0)
    leading = max((f for f in _LEADING if sums.get(f, 0.0) > 0), key=lambda f: sums[f], default=None)
    if leading and reformat > 0:
        sums[leading] += sums.pop("reformat")
    best = max(sums, key=lambda family: sums[family], default=None)
    if best is None or sums[best] < CARRIES * times.slowdown_ns:
        if evidence.clock:
            return "clock/power", f"clock: {evidence.clock}"
        return "not-explained", _unexplained(evidence, times)
    changed = [t for t in times.groups if t.group.kind != "same"]
    members = [t for t in changed if _family(t, evidence) == best]
    # Those that are plain by themselves, where any is; otherwise the sum speaks for all of them.
    members = [t for t in members if t.named] or members
    explains = f"explains {_ms(sums[best])} of {_ms(times.slowdown_ns)} ms"
    reformats = [t for t in changed if t.group.kind == "reformat" and not t.group.base]
    beside = f", with {_count(len(reformats), 'new reformat layer')}" if leading == best and reformats else ""
    return best, f"{_phrase(best, members)}, {explains}{beside}{_graph(best, evidence.graph)}{_work(members)}"


def _family(timed: Timed, evidence: Evidence) -> Cause:
    # Another tactic for an unchanged layer, and nothing else that chose it: the builder drew another ticket.
    if timed.group.kind == "kernel" and not evidence.toolchain:
        return "build"
    return _FAMILIES[timed.group.kind]


def _most(changed: Sequence[Timed], evidence: Evidence) -> tuple[Cause, list[Timed]]:
    """The family that most of the changed time belongs to, with its members, largest first."""
    families: dict[Cause, list[Timed]] = defaultdict(list)
    for timed in changed:
        family = "not-explained" if timed.group.kind == "same" else _family(timed, evidence)
        families[family].append(timed)
    for leading in _LEADING:
        if leading in families:
            families[leading] += families.pop("reformat", [])

    def weight(family: Cause) -> tuple[float, int]:
        return math.fsum(max(t.base_ns, t.head_ns) for t in families[family]), len(families[family])

    family = max(families, key=weight)
    return family, families[family]


def _phrase(family: Cause, members: Sequence[Timed]) -> str:
    first = sorted(members, key=lambda t: -abs(t.difference_ns))
    if family == "un-fused":
        group = next((t.group for t in first if t.group.kind == "un-fused"), first[0].group)
        more = sum(t.group.kind == "un-fused" for t in members) - 1
        others = f", and {_count(more, 'group')} more" if more > 0 else ""
        was = " and ".join(f"`{_cut(layer.name)}`" for layer in group.base[:2])
        return f"un-fused: {was} became {_count(len(group.head), 'layer')}{others}"
    names = ", ".join(f"`{_cut(_title(t))}`" for t in first[:_NAMED])
    rest = f" and {len(first) - _NAMED} more" if len(first) > _NAMED else ""
    count = _count(len(members), "layer")
    if family == "precision":
        changed = next((t.group.detail for t in first if t.group.kind == "precision"), "")
        return f"new precision: {count} changed from {changed.replace(' → ', ' to ')} ({names}{rest})"
    words = {
        "new-layers": f"new layers: {names}{rest}",
        "changed-layers": f"changed layers: {names}{rest}",
        "reformat": f"new reformat layers: {names}{rest}",
        "kernel": f"another kernel for {count} ({names}{rest})",
        "build": f"another tactic for {_count(len(members), 'unchanged layer')} (build difference): "
        + f"{names}{rest}",
    }
    return words.get(family, f"{count} changed: {names}{rest}")


def _graph(family: Cause, graph: Sequence[GraphChange]) -> str:
    """What in the graph goes with it, where one change does."""
    for kind in {"un-fused": ("output", "rewired", "added"), "new-layers": ("added",)}.get(family, ()):
        if found := [change for change in graph if change.kind == kind]:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            return f"; {_cut(found[0].what, 200)}{more}"
    return ""


def _work(members: Sequence[Timed]) -> str:
    """In what the largest layer differs, where it is one that does other work; of its first node alone."""
    group = max(members, key=lambda t: abs(t.difference_ns)).group
    detail = group.detail.split("; ")[0]
    return f"; {_cut(detail, 200)}" if group.kind == "resized" and detail else ""


def _unexplained(evidence: Evidence, times: Times | None) -> str:
    if times is None:
        return f"not explained by layers: {evidence.note or 'no load was profiled'}"
    named = [t for t in times.groups if t.named]
    if not named:
        return "not explained by layers: none is slower beyond its own spread in profiled loads"
    largest = max(named, key=lambda t: t.difference_ns)
    part = f"the largest is `{_cut(_title(largest))}` with {_ms(largest.difference_ns)}"
    return f"not explained by layers: {part} of {_ms(times.slowdown_ns)} ms"


def _title(timed: Timed) -> str:
    return (timed.group.head or timed.group.base)[0].name


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _cut(text: str, most: int = _NAME) -> str:
    return text if len(text) <= most else f"{text[:most]}…"


def _ms(ns: float) -> str:
    return f"{ns / 1e6:.3f}" if abs(ns) >= 1000 else f"{ns / 1e6:.5f}"
