"""Layers of two engines brought together by the ONNX nodes that they were made from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Literal, NamedTuple

from perfgate.engine.tensorrt.inspect import Layer

Kind = Literal[
    "same", "resized", "appeared", "vanished", "un-fused", "fused", "kernel", "precision", "reformat"
]

# Layers that are there only because their neighbours want another layout or type.
_REFORMATS = {"reformat", "cast", "reorder", "reorderinput", "reorderoutput", "copy", "transpose"}
_COPY = re.compile(r"^(Reformatting CopyNode for \w+ Tensor \d+ to )(.*)$")
_HELPER = re.compile(r"^((?:reshape|squeeze|unsqueeze|shuffle)_(?:before|after)_)(.*)$")
_JOIN = re.compile(r" \+ |, | \|\| ")


class Group(NamedTuple):
    """Layers of base and of head that do the same part of the network's work. `sure` is False where it
    cannot be told whether that is the same work: nothing may rest on such a group being unchanged."""

    base: tuple[Layer, ...]
    head: tuple[Layer, ...]
    kind: Kind
    detail: str = ""
    sure: bool = True

    @property
    def nodes(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(node for layer in (*self.base, *self.head) for node in layer.onnx_nodes))


class Names(NamedTuple):
    """What a base node is called in head: the graph diff's pairs, and the nodes that only one graph has.
    `changed` says of head nodes in what their work differs; of those in `unsure` it cannot be told."""

    pairs: dict[str, str]
    removed: frozenset[str]
    added: frozenset[str]
    changed: Mapping[str, str] = {}
    unsure: frozenset[str] = frozenset()

    def of_base(self, node: str) -> str:
        if node in self.pairs:
            return self.pairs[node]
        if node in self.removed:
            return f"removed: {node}"
        helper = _HELPER.match(node)
        return helper[1] + self.of_base(helper[2]) if helper else node

    def of_head(self, node: str) -> str:
        return f"added: {node}" if node in self.added else node

    def change(self, layer: Layer) -> str:
        """In what the work of a head layer differs, by its nodes."""
        return "; ".join(self.changed[node] for node in layer.onnx_nodes if node in self.changed)[:1000]

    def sure(self, layer: Layer) -> bool:
        """Would it be known if this head layer did other work? Not of what hides its nodes, once any node
        of the graph differs; nor of a layer without a node or a shape of its own, once any shape does."""
        other = bool(self.changed or self.unsure)
        if is_opaque(layer):
            return not (other or self.removed or self.added)
        return (
            not other
            or bool(layer.shapes)
            or bool(layer.onnx_nodes and not self.unsure & {*layer.onnx_nodes})
        )


def is_reformat(layer: Layer) -> bool:
    return layer.type.lower() in _REFORMATS or layer.name.startswith("Reformatting CopyNode")


def is_opaque(layer: Layer) -> bool:
    """A block of Myelin's, whose inside no inspector shows."""
    return (
        layer.name.startswith(("{ForeignNode", "ForeignNode", "__myl", "kgen_"))
        or "myelin" in layer.type.lower()
    )


def group_layers(base: Sequence[Layer], head: Sequence[Layer], names: Names) -> list[Group]:
    """All layers of both sides in groups, in head's order, what is gone last.

    Layers that share a node belong together, however many they are on either side. What holds no node goes
    by its name, then by type, shapes and formats; the rest has appeared or vanished.
    """
    sides = (
        [_nodes(layer, names.of_base) for layer in base],
        [_nodes(layer, names.of_head) for layer in head],
    )
    groups = _by_nodes(base, head, sides, names)
    left = [layer for layer, nodes in zip(base, sides[0], strict=True) if not nodes]
    right = [layer for layer, nodes in zip(head, sides[1], strict=True) if not nodes]
    for of_base, of_head in (
        (lambda x: _own_name(x, names.of_base), lambda x: _own_name(x, names.of_head)),
        (_looks, _looks),
    ):
        left, right, found = _pair(left, right, of_base, of_head)
        groups += [Group((one,), (other,), *_one_to_one(one, other, names)) for one, other in found]
    groups += [Group((), (layer,), *_alone(layer, "appeared")) for layer in right]
    groups += [Group((layer,), (), *_alone(layer, "vanished")) for layer in left]
    order = {id(layer): index for index, layer in enumerate(head)}
    groups = [group._replace(sure=all(map(names.sure, group.head))) for group in groups]
    return sorted(groups, key=lambda g: min((order[id(layer)] for layer in g.head), default=len(order)))


def _nodes(layer: Layer, named: Callable[[str], str]) -> frozenset[str]:
    return (
        frozenset()
        if is_reformat(layer) and _COPY.match(layer.name)
        else frozenset(map(named, layer.onnx_nodes))
    )


def _own_name(layer: Layer, named: Callable[[str], str]) -> Hashable:
    copy = _COPY.match(layer.name)
    if not copy:
        return layer.type, layer.name
    return copy[1], tuple(sorted(named(part.strip()) for part in _JOIN.split(copy[2])))


def _looks(layer: Layer) -> Hashable:
    return layer.type, layer.shapes, layer.formats, layer.precision


def _by_nodes(
    base: Sequence[Layer],
    head: Sequence[Layer],
    sides: tuple[list[frozenset[str]], list[frozenset[str]]],
    names: Names,
) -> list[Group]:
    """Connected components of layers that share nodes (union-find)."""
    parent: dict[Hashable, Hashable] = {}

    def root(item: Hashable) -> Hashable:
        while (above := parent.setdefault(item, item)) != item:
            parent[item] = parent[above]
            item = above
        return item

    for nodes in (*sides[0], *sides[1]):
        first, *others = sorted(nodes) or [""]
        for node in others:
            parent[root(node)] = root(first)
    members: dict[Hashable, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    for side, layers in enumerate(sides):
        for index, nodes in enumerate(layers):
            if nodes:
                members[root(min(nodes))][side].append(index)
    groups = []
    for ours, theirs in members.values():
        old, new = tuple(base[i] for i in ours), tuple(head[i] for i in theirs)
        kind, detail = _classify(old, new, [sides[0][i] for i in ours], [sides[1][i] for i in theirs], names)
        groups.append(Group(old, new, kind, detail))
    return groups


def _classify(
    old: tuple[Layer, ...],
    new: tuple[Layer, ...],
    before: list[frozenset[str]],
    after: list[frozenset[str]],
    names: Names,
) -> tuple[Kind, str]:
    if not old:
        return _alone(new[0], "appeared")
    if not new:
        return _alone(old[0], "vanished")
    if len(before) == len(after) and sorted(map(sorted, before)) == sorted(map(sorted, after)):
        if len(old) == 1:
            return _one_to_one(old[0], new[0], names)
        found = [_one_to_one(one, other, names) for one, other in zip(old, new, strict=True)]
        return next((each for each in found if each[0] != "same"), ("same", ""))
    split, joined = _torn(before, after), _torn(after, before)
    counts = f"{len(old)} → {len(new)} layers"
    if split and (not joined or len(new) >= len(old)):
        return "un-fused", counts
    if joined:
        return "fused", counts
    extra = sorted(frozenset().union(*after) - frozenset().union(*before))
    if extra:
        return "appeared", f"now also holds {', '.join(extra)[:200]}"
    return (
        "vanished",
        f"no longer holds {', '.join(sorted(frozenset().union(*before) - frozenset().union(*after)))[:200]}",
    )


def _torn(before: list[frozenset[str]], after: list[frozenset[str]]) -> bool:
    """Are two nodes that were in one layer in no common layer any more?"""
    for nodes in before:
        holders = [nodes & other for other in after if nodes & other]
        if len(holders) > 1 and not any(frozenset().union(*holders) <= one for one in holders):
            return True
    return False


def _one_to_one(old: Layer, new: Layer, names: Names) -> tuple[Kind, str]:
    computing = old.computes and new.computes and not is_reformat(new)
    if computing and old.precision and new.precision and old.precision != new.precision:
        return "precision", f"{old.precision} → {new.precision}"
    if not is_reformat(new) and (change := names.change(new)):
        return "resized", change
    if old.shapes != new.shapes and old.shapes and new.shapes:
        return "resized", f"{_shapes(old)} → {_shapes(new)}"
    if old.weights != new.weights:
        return "resized", f"weights {sum(old.weights.values())} → {sum(new.weights.values())}"
    if (old.tactic, old.tactic_value) != (new.tactic, new.tactic_value):
        return "kernel", f"{_tactic(old)} → {_tactic(new)}"
    if old.formats != new.formats:
        return "kernel", f"layout {', '.join(old.formats)} → {', '.join(new.formats)}"[:1000]
    if old.type != new.type:
        return "kernel", f"{old.type} → {new.type}"
    return "same", ""


def _alone(layer: Layer, kind: Literal["appeared", "vanished"]) -> tuple[Kind, str]:
    if is_reformat(layer):
        return "reformat", f"{kind}: {layer.type} to {', '.join(layer.formats) or 'an unknown layout'}"[:500]
    return kind, layer.type


def _tactic(layer: Layer) -> str:
    return (layer.tactic or layer.tactic_value or "unknown tactic")[:300]


def _shapes(layer: Layer) -> str:
    return ", ".join(str(list(shape)) for shape in layer.shapes)[:300]


def _pair(
    left: list[Layer],
    right: list[Layer],
    of_base: Callable[[Layer], Hashable],
    of_head: Callable[[Layer], Hashable],
) -> tuple[list[Layer], list[Layer], list[tuple[Layer, Layer]]]:
    """Pair what has the same key, in order; returns what is left of both, and the pairs."""
    waiting: dict[Hashable, list[Layer]] = defaultdict(list)
    for layer in reversed(right):
        waiting[of_head(layer)].append(layer)
    pairs, rest = [], []
    for layer in left:
        key = of_base(layer)
        if waiting.get(key):
            pairs.append((layer, waiting[key].pop()))
        else:
            rest.append(layer)
    taken = {id(other) for _, other in pairs}
    return rest, [layer for layer in right if id(layer) not in taken], pairs
