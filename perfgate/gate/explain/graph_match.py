"""Which node of one graph is which of the other, also where an exporter has numbered them anew."""

from __future__ import annotations

import difflib
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

from perfgate.gate.explain.graph_read import Node, ReadGraph

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
