"""Which nodes do other work than before, and which nodes of a graph a layer was made from."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

import msgspec

from perfgate.engine.tensorrt.inspect import Layer
from perfgate.gate.explain.graph_read import Node, ReadGraph, differ

_NAME = 100
# What ONNX Runtime's layout optimiser adds to the name of a tensor, to name the node that makes it.
_ADDED = re.compile(r"(?:_nchwc|_nhwc|_token_\d+)+$")


class Work(NamedTuple):
    """Paired head nodes (by key) that do other work than their base node, with what differs; and those of
    which that cannot be told: a shape is not known, and what makes the tensor has changed or is new."""

    changed: dict[str, str]
    unsure: frozenset[str]


def compare_work(base: ReadGraph, head: ReadGraph, pairs: dict[int, int]) -> Work:
    """A node does the work that it did if operator, attributes, and shapes and types of all its inputs and
    outputs are those of its base node. Other values of weights are no other work, nor is another source of
    an input."""
    back = {other: one for one, other in pairs.items()}
    changed: dict[str, str] = {}
    unsure: set[str] = set()
    same: set[int] = set()
    for index, node in enumerate(head.nodes):
        if index not in back:
            continue
        old = base.nodes[back[index]]
        if found := [*_other(old, node), *_other_shapes(base, head, old, node)]:
            changed[node.key] = f"{node.operator} `{node.key[:_NAME]}`: {', '.join(found)}"[:1000]
        elif _unknown(base, head, old, node, same):
            unsure.add(node.key)
        else:
            same.add(index)
    return Work(changed, frozenset(unsure))


def _other(old: Node, new: Node) -> Iterator[str]:
    if old.operator != new.operator:
        yield f"was {old.operator}"
    if new.operator == "Constant":  # its attribute is a value, not work
        return
    for name in sorted(old.attributes.keys() | new.attributes.keys()):
        one, other = old.attributes.get(name, "absent"), new.attributes.get(name, "absent")
        if one != other:
            yield f"{name[:_NAME]} = {one} → {other}"


def _tensors(old: Node, new: Node) -> Iterator[tuple[str, str]]:
    """Names of the tensors that stand in the same place, an empty one where there is none; inputs first."""
    yield from zip_longest(old.inputs, new.inputs, fillvalue="")
    yield from zip_longest(old.outputs, new.outputs, fillvalue="")


def _other_shapes(base: ReadGraph, head: ReadGraph, old: Node, new: Node) -> Iterator[str]:
    for one, other in _tensors(old, new):
        before, after = base.known.get(one), head.known.get(other)
        if bool(one) != bool(other):
            yield f"`{(other or one)[:_NAME]}` is {'new' if other else 'gone'}"
        elif differ(before, after):
            yield f"`{other[:_NAME]}` {before} → {after}"


def _unknown(base: ReadGraph, head: ReadGraph, old: Node, new: Node, same: Collection[int]) -> bool:
    """Could a tensor differ that is not known? It cannot where a node makes it that does the same work."""
    for one, other in _tensors(old, new):
        made = head.maker.get(other)
        ours = made is not None and head.nodes[made] is new
        unknown = differ(base.known.get(one), head.known.get(other)) is None
        if unknown and made is not None and made not in same and not ours:
            return True
    return False


def with_nodes(layers: Sequence[Layer], graph: ReadGraph) -> tuple[Layer, ...]:
    """The layers; those that name no node, with the nodes that the tensor in their name was made by.

    ONNX Runtime calls a convolution in its blocked layout by the tensor that it makes, `a1_nchwc`: it is
    made of all nodes from the one that makes `a1` up to the nearest one of the layer's own operator, but
    not through tensors that other layers make.
    """
    by_key = {node.key: node for node in graph.nodes}
    tensors = [_tensor(layer, graph) for layer in layers]
    owned = {name for name in tensors if name}
    owned |= {x for one in layers for n in one.onnx_nodes[-1:] if n in by_key for x in by_key[n].outputs}
    return tuple(
        msgspec.structs.replace(layer, onnx_nodes=_made_of(graph, name, layer.type, owned)) if name else layer
        for layer, name in zip(layers, tensors, strict=True)
    )


def _tensor(layer: Layer, graph: ReadGraph) -> str:
    if layer.onnx_nodes:
        return ""
    return next((n for n in (layer.name, _ADDED.sub("", layer.name)) if n in graph.maker), "")


def _made_of(graph: ReadGraph, tensor: str, operator: str, owned: Collection[str]) -> tuple[str, ...]:
    """The chain of nodes, first to last; the last alone where no node of that operator is found."""
    last = graph.maker[tensor]
    after: dict[int, int | None] = {last: None}
    for index in (queue := [last]):  # grows: breadth first
        node = graph.nodes[index]
        if node.operator == operator:
            return tuple(_from(graph, index, after))
        for name in node.inputs:
            made = graph.maker.get(name)
            if made is not None and made not in after and name not in owned:
                after[made] = index
                queue.append(made)
    return (graph.nodes[last].key,)


def _from(graph: ReadGraph, index: int | None, after: Mapping[int, int | None]) -> Iterator[str]:
    while index is not None:
        yield graph.nodes[index].key
        index = after[index]
