"""What differs between two ONNX graphs, in sentences that name nodes and tensors: first which node is which,
also where an exporter has numbered them anew."""

from __future__ import annotations

import difflib
import itertools
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from pathlib import Path

from perfgate.gate.explain.graph_read import Node, ReadGraph, read_for_diff
from perfgate.gate.explain.graph_work import compare_work
from perfgate.records import GraphChange, Record

_MOST = 10_000
_NAME = 200


class GraphDiff(Record):
    """The changes, and which base node is which head node (by key). `changed` and `unsure` are as in
    `graph_work.Work`; `graphs` are base's and head's, None where they were not compared."""

    changes: tuple[GraphChange, ...] = ()
    pairs: dict[str, str] = {}
    changed: dict[str, str] = {}
    unsure: frozenset[str] = frozenset()
    graphs: tuple[ReadGraph, ReadGraph] | None = None


def diff_graphs(base: Path, head: Path, *, sizes: Mapping[str, int] | None = None) -> GraphDiff:
    """Compare two ONNX files, with `sizes` of named axes. Raises `SpecError` for one that does not parse or
    whose data is not its own."""
    return compare_graphs(read_for_diff(base, sizes or {}), read_for_diff(head, sizes or {}))


def compare_graphs(base: ReadGraph, head: ReadGraph) -> GraphDiff:
    """The changes of two read graphs, in the order: opsets, inputs, outputs, then nodes as they run."""
    pairs = match_nodes(base, head)
    named = {base.nodes[one].key: head.nodes[other].key for one, other in pairs.items()}
    work = compare_work(base, head, pairs)
    return GraphDiff(
        changes=tuple(itertools.islice(_all_changes(base, head, pairs), _MOST)),
        pairs=named,
        changed=work.changed,
        unsure=work.unsure,
        graphs=(base, head),
    )


def _all_changes(base: ReadGraph, head: ReadGraph, pairs: dict[int, int]) -> Iterator[GraphChange]:
    yield from _opsets(base, head)
    yield from _interface(base, head, pairs)
    back = {other: one for one, other in pairs.items()}
    for index, node in enumerate(base.nodes):
        if index not in pairs:
            yield GraphChange(kind="removed", node=_cut(node.key), what=f"{_named(node)} is gone")
    for index, node in enumerate(head.nodes):
        if index not in back:
            yield GraphChange(kind="added", node=_cut(node.key), what=f"{_named(node)} is new")
            continue
        old = base.nodes[back[index]]
        yield from _attributes(old, node)
        yield from _inputs(base, head, pairs, old, node)
        yield from _shapes(base, head, old, node)


def _opsets(base: ReadGraph, head: ReadGraph) -> Iterator[GraphChange]:
    for domain in sorted(base.opsets.keys() | head.opsets.keys()):
        one, other = base.opsets.get(domain), head.opsets.get(domain)
        if one != other:
            yield GraphChange(
                kind="opset",
                node=_cut(domain),
                what=f"opset of {_cut(domain)}: {one or 'absent'} → {other or 'absent'}",
            )


def _interface(base: ReadGraph, head: ReadGraph, pairs: dict[int, int]) -> Iterator[GraphChange]:
    for name in sorted(base.inputs.keys() | head.inputs.keys()):
        one, other = base.inputs.get(name, "absent"), head.inputs.get(name, "absent")
        if one != other:
            yield GraphChange(
                kind="shape", node=_cut(name), what=f"graph input `{_cut(name)}`: {one} → {other}"
            )
    # An output is known by what makes it, so that a new name alone is no other output.
    known = {_source(head, name): name for name in head.outputs}
    for name, kind in base.outputs.items():
        twin = known.pop(_through(base, head, pairs, name), None)
        if twin is None:
            yield GraphChange(kind="output", node=_cut(name), what=f"graph output `{_cut(name)}` is gone")
        elif head.outputs[twin] != kind:
            yield GraphChange(
                kind="shape",
                node=_cut(name),
                what=f"graph output `{_cut(name)}`: {kind} → {head.outputs[twin]}",
            )
    for name in known.values():
        yield GraphChange(kind="output", node=_cut(name), what=f"graph output `{_cut(name)}` is new")


def _source(graph: ReadGraph, name: str) -> tuple[object, ...]:
    """Where a tensor comes from: a node and its output's number, or a name."""
    made = graph.maker.get(name)
    return ("name", name) if made is None else ("node", made, graph.nodes[made].outputs.index(name))


def _through(base: ReadGraph, head: ReadGraph, pairs: dict[int, int], name: str) -> tuple[object, ...]:
    """Where a base tensor would come from in head."""
    source = _source(base, name)
    return ("node", pairs.get(int(str(source[1])), -1), source[2]) if source[0] == "node" else source


def _attributes(base: Node, head: Node) -> Iterator[GraphChange]:
    if base.operator != head.operator:
        what = f"`{_cut(head.key)}` is {head.operator}, was {base.operator}"
        yield GraphChange(kind="attribute", node=_cut(head.key), what=what)
    for name in sorted(base.attributes.keys() | head.attributes.keys()):
        one, other = base.attributes.get(name, "absent"), head.attributes.get(name, "absent")
        if one != other:
            yield GraphChange(
                kind="attribute", node=_cut(head.key), what=f"{_named(head)}: {_cut(name)} = {one} → {other}"
            )


def _inputs(
    base: ReadGraph, head: ReadGraph, pairs: dict[int, int], old: Node, new: Node
) -> Iterator[GraphChange]:
    for slot in range(max(len(old.inputs), len(new.inputs))):
        one, other = old.weights.get(slot), new.weights.get(slot)
        if one is not None and other is not None:
            if one != other:
                how = "other values" if one[:2] == other[:2] else f"{one} → {other}"
                weight = f"initialiser `{_cut(new.inputs[slot])}` of {_named(new)}"
                yield GraphChange(kind="initializer", node=_cut(new.key), what=f"{weight}: {how}")
            continue
        before = old.inputs[slot] if slot < len(old.inputs) else ""
        after = new.inputs[slot] if slot < len(new.inputs) else ""
        if one is None and other is None and _through(base, head, pairs, before) == _source(head, after):
            continue
        if before or after:
            what = f"{_named(new)}: input {slot} is {_origin(head, after)}, was {_origin(base, before)}"
            yield GraphChange(kind="rewired", node=_cut(new.key), what=what)


def _origin(graph: ReadGraph, name: str) -> str:
    made = graph.maker.get(name)
    if not name:
        return "absent"
    return f"`{_cut(name)}`" if made is None else f"the output of `{_cut(graph.nodes[made].key)}`"


def _shapes(base: ReadGraph, head: ReadGraph, old: Node, new: Node) -> Iterator[GraphChange]:
    for one, other in zip(old.outputs, new.outputs, strict=False):
        before, after = base.shapes.get(one), head.shapes.get(other)
        # Exporters write shapes of inner tensors or leave them out: only two that are stated can differ.
        if before and after and before != after:
            yield GraphChange(
                kind="shape", node=_cut(new.key), what=f"output of {_named(new)}: {before} → {after}"
            )


def _named(node: Node) -> str:
    return f"{node.operator} `{_cut(node.key)}`"


def _cut(text: str) -> str:
    return text if len(text) <= _NAME else f"{text[:_NAME]}…"


# difflib's time is quadratic at worst; beyond this many unmatched nodes names have to do.
_ALIGNED = 4_000


def match_nodes(base: ReadGraph, head: ReadGraph) -> dict[int, int]:
    """Indices of base nodes to those of head nodes, each used once.

    First what is certain: nodes with the same everything before them, then with the same everything behind
    them (hashes of whole subtrees, as Merkle's, "A certified digital signature", 1989, are). What is between
    two changes goes by name and operator where content agrees, then by alignment of the sequence of contents,
    then by name alone, then by alignment of operators.
    """
    pairs: dict[int, int] = {}
    for above, below in ((_upstream(base), _upstream(head)), (_downstream(base), _downstream(head))):
        _pair_equal(pairs, above, below)
    _pair_by(pairs, base, head, lambda node: (node.key, node.signature(values=True)))
    _align(pairs, base, head, lambda node: node.signature(values=True))
    _pair_by(pairs, base, head, lambda node: (node.key, node.operator))
    _align(pairs, base, head, lambda node: node.signature(values=False))
    return pairs


def _upstream(graph: ReadGraph) -> list[int]:
    """For each node a hash of itself and of everything that it is computed from."""
    found: list[int] = []
    for node in graph.nodes:
        before = []
        for slot, name in enumerate(node.inputs):
            if slot in node.weights:
                continue
            made = graph.maker.get(name)
            if made is None or made >= len(found):
                before.append(hash(("input", slot, name)))
            else:
                before.append(hash((slot, found[made], graph.nodes[made].outputs.index(name))))
        found.append(hash((node.signature(values=True), tuple(before))))
    return found


def _downstream(graph: ReadGraph) -> list[int]:
    """For each node a hash of itself and of everything that is computed from it."""
    users: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for index, node in enumerate(graph.nodes):
        for slot, name in enumerate(node.inputs):
            users[name].append((index, slot))
    found = [0] * len(graph.nodes)
    for index in reversed(range(len(graph.nodes))):
        node = graph.nodes[index]
        behind = [
            hash((position, slot, found[user]))
            for position, name in enumerate(node.outputs)
            for user, slot in users[name]
        ]
        behind += [hash(("output", name)) for name in node.outputs if name in graph.outputs]
        found[index] = hash((node.signature(values=True), tuple(sorted(behind))))
    return found


def _pair_equal(pairs: dict[int, int], base: Sequence[Hashable], head: Sequence[Hashable]) -> None:
    """Pair what is equal and not paired yet, in order."""
    taken = set(pairs.values())
    waiting: dict[Hashable, list[int]] = defaultdict(list)
    for index in reversed(range(len(head))):
        if index not in taken:
            waiting[head[index]].append(index)
    for index, key in enumerate(base):
        if index not in pairs and waiting.get(key):
            pairs[index] = waiting[key].pop()


def _pair_by(
    pairs: dict[int, int], base: ReadGraph, head: ReadGraph, key: Callable[[Node], Hashable]
) -> None:
    _pair_equal(pairs, [key(node) for node in base.nodes], [key(node) for node in head.nodes])


def _align(pairs: dict[int, int], base: ReadGraph, head: ReadGraph, key: Callable[[Node], Hashable]) -> None:
    """Pair what is left by the longest runs that both sequences have in common."""
    taken = set(pairs.values())
    left = [index for index in range(len(base.nodes)) if index not in pairs]
    right = [index for index in range(len(head.nodes)) if index not in taken]
    if not left or not right or max(len(left), len(right)) > _ALIGNED:
        return
    matcher = difflib.SequenceMatcher(
        None, [key(base.nodes[i]) for i in left], [key(head.nodes[i]) for i in right], autojunk=False
    )
    for a, b, size in matcher.get_matching_blocks():
        pairs |= dict(zip(left[a : a + size], right[b : b + size], strict=True))
