"""Explanations on real layer records of TensorRT 8.5.3, with made-up times (see `explain_sides`)."""

from __future__ import annotations

import msgspec
import pytest
from explain_sides import CASE, engine, facts, loads, profiled, recipe, side

from perfgate.engine.tensorrt.inspect import Layer
from perfgate.errors import CaseError
from perfgate.gate.explain.explain import Side, explain_case
from perfgate.gate.explain.layer_times import weigh
from perfgate.records import Explanation


def explain(
    base: tuple[Layer, ...],
    head: tuple[Layer, ...],
    seed: int = 1,
    factor: dict[str, float] | None = None,
    state: float = 1.0,
) -> Explanation:
    return explain_case(
        CASE,
        side(base),
        side(head, digest="f" * 64),
        profile=profiled(loads(base, seed), loads(head, seed + 1000, factor=factor, state=state)),
    )


@pytest.mark.parametrize("seed", range(20))
def test_no_change_is_never_explained(seed: int) -> None:
    x0 = engine("x0")
    found = explain(x0, x0, seed, state=1.05)
    assert found.kind == "nothing-changed"
    assert not found.layers
    assert found.state_ratio == pytest.approx(1.05, abs=0.03)


def test_no_change_is_not_explained_in_three_hundred_tries_of_three_loads() -> None:
    """At a level of 1 in 10,000 a try, one or more in 300 comes once in 33 seeds; these are fixed."""
    from perfgate.gate.explain.layer_groups import Names, group_layers

    x0 = engine("x0")
    groups = group_layers(x0, x0, Names({}, frozenset(), frozenset()))
    named = 0
    for seed in range(300):
        one, other = loads(x0, seed, count=3), loads(x0, seed + 9999, count=3)
        times = weigh(groups, [x.layers_ns for x in one], [x.layers_ns for x in other])
        named += times.slower or any(t.named for t in times.groups)
    assert named == 0


def test_one_layer_more_is_named() -> None:
    found = explain(engine("x0"), engine("x1"))
    assert found.kind == "new-layers"
    assert "`node_of_r161`" in found.cause
    assert "explains" in found.cause
    assert [change.kind for change in found.layers] == ["appeared"]
    assert found.layers[0].onnx_nodes == ("node_of_r161",)
    assert found.layers[0].base_ns is None
    assert found.layers[0].share == pytest.approx(1.0, abs=0.4)


def test_a_build_with_other_tactics_is_a_build_difference() -> None:
    x0, rebuilt = engine("x0"), engine("x0_rebuilt_without_cache")
    old = {layer.name: layer.tactic_value for layer in x0}
    others = {layer.name for layer in rebuilt if old.get(layer.name) != layer.tactic_value}
    found = explain(x0, rebuilt, factor=dict.fromkeys(others, 1.2))
    assert found.kind == "build"
    assert "another tactic for" in found.cause
    assert "unchanged layers (build difference)" in found.cause
    kernels = [change for change in found.layers if change.kind == "kernel"]
    assert len(kernels) >= 20
    assert not [change for change in found.layers if change.kind == "precision"]
    assert all(" → " in change.detail for change in kernels)


def test_a_build_with_other_tactics_of_the_same_speed_is_named_and_blamed_for_nothing() -> None:
    found = explain(engine("x0"), engine("x0_rebuilt_without_cache"))
    assert found.kind == "build"
    assert "no slower" in found.cause
    assert all(change.share is None for change in found.layers)


def test_another_tensorrt_makes_it_another_kernel() -> None:
    x0, rebuilt = engine("x0"), engine("x0_rebuilt_without_cache")
    factor = {layer.name: 1.2 for layer in rebuilt}
    head = msgspec.structs.replace(side(rebuilt, digest="f" * 64), recipe=recipe(tensorrt="10.0"))
    base = msgspec.structs.replace(side(x0), recipe=recipe(tensorrt="8.5"))
    assert base.facts and head.facts
    names = {layer.name: layer.tactic_value for layer in x0}
    factor = {layer.name: 1.3 for layer in rebuilt if names.get(layer.name) != layer.tactic_value}
    found = explain_case(CASE, base, head, profile=profiled(loads(x0, 1), loads(rebuilt, 2, factor=factor)))
    assert found.kind == "kernel"
    assert any(d.field == "recipe.versions.tensorrt" for d in found.differences)


def unfused(layers: tuple[Layer, ...], name: str) -> tuple[Layer, ...]:
    """The engine as it would be with the ReLU of `name` in a layer of its own."""
    found = []
    for layer in layers:
        if layer.name != name:
            found.append(layer)
            continue
        *held, last = layer.onnx_nodes
        first = msgspec.structs.replace(layer, name=" + ".join(held), onnx_nodes=tuple(held))
        second = Layer(name=f"PWN({last})", type="PointWiseV2", precision="fp16", onnx_nodes=(last,))
        found += [first, second]
    return tuple(found)


def test_a_broken_fusion_is_named() -> None:
    x0 = engine("x0")
    head = unfused(x0, "n16 + n17 + n18")
    found = explain(x0, head, factor={"n16 + n17": 1.6})
    assert found.kind == "un-fused"
    assert found.cause.startswith("un-fused: `n16 + n17 + n18` became 2 layers, explains ")
    change = found.layers[0]
    assert (change.kind, change.base_layers) == ("un-fused", ("n16 + n17 + n18",))
    assert change.head_layers == ("n16 + n17", "PWN(n18)")
    assert change.share == pytest.approx(1.0, abs=0.2)


def test_many_small_differences_are_plain_in_their_sum() -> None:
    x0, rebuilt = engine("x0"), engine("x0_rebuilt_without_cache")
    old = {layer.name: layer.tactic_value for layer in x0}
    others = {layer.name for layer in rebuilt if old.get(layer.name) != layer.tactic_value}
    found = explain(x0, rebuilt, factor=dict.fromkeys(others, 1.02))
    assert found.kind == "build"
    assert "explains" in found.cause
    alone = [change for change in found.layers if change.kind == "kernel" and change.share is not None]
    assert len(alone) <= 2  # one reformat goes by another name there, and names decide the made-up times
    assert found.unexplained_ns == pytest.approx(0, abs=600)


def test_the_other_way_round_it_is_fused_and_nothing_is_slower() -> None:
    x0 = engine("x0")
    found = explain(unfused(x0, "n16 + n17 + n18"), x0)
    assert [change.kind for change in found.layers] == ["fused"]
    assert found.layers[0].share is None


def test_precision_lost_on_a_block_is_named_with_its_reformats() -> None:
    x0 = engine("x0")
    lost = ("n16 + n17 + n18", "n19 + n20 + n21")
    head = tuple(
        msgspec.structs.replace(x, precision="fp32", tactic="sgemm") if x.name in lost else x for x in x0
    )
    copy = Layer(name="Reformatting CopyNode for Input Tensor 0 to n16 + n17 + n18", type="Reformat")
    head = (copy, *head)
    found = explain(x0, head, factor=dict.fromkeys(lost, 2.0))
    assert found.kind == "precision"
    assert "2 layers changed from fp16 to fp32" in found.cause
    assert "with 1 new reformat layer" in found.cause
    kinds = [change.kind for change in found.layers]
    assert sorted(kinds) == ["precision", "precision", "reformat"]


def test_a_slower_layer_with_the_same_kernel_is_not_called_a_cause() -> None:
    x0 = engine("x0")
    found = explain(x0, x0, factor={"n16 + n17 + n18": 3.0})
    assert found.kind == "not-explained"
    assert "`n16 + n17 + n18`" in found.cause
    assert [change.kind for change in found.layers] == ["slower"]


def test_the_same_bytes_have_no_layer_that_differs() -> None:
    x0 = engine("x0")
    same = side(x0, digest="a" * 64)
    times = profiled(loads(x0, 1), loads(x0, 2, factor={"n16 + n17 + n18": 3.0}))
    found = explain_case(CASE, same, same, profile=times)
    assert found.kind == "nothing-changed"
    assert "byte for byte" in found.cause
    assert not found.layers


def test_totals_are_told_apart_and_never_scaled() -> None:
    x0, x1 = engine("x0"), engine("x1")
    base, head = loads(x0, 1), loads(x1, 2, state=1.1)
    found = explain_case(
        CASE, side(x0, gated_ns=400_000), side(x1, gated_ns=420_000), profile=profiled(base, head)
    )
    assert (found.gated_base_ns, found.gated_head_ns) == (400_000, 420_000)
    assert found.profiled_head_ns == pytest.approx(
        sum(sum(load.layers_ns.values()) for load in head) / len(head), abs=0.1
    )
    assert found.unexplained_ns is not None
    assert found.matched_share is not None and found.matched_share > 0.9


def test_without_times_layers_are_still_compared() -> None:
    def broken() -> tuple[list[object], list[object]]:
        raise CaseError("no profiler here")

    found = explain_case(CASE, side(engine("x0")), side(engine("x1")), profile=broken)  # type: ignore[arg-type]
    assert [change.kind for change in found.layers] == ["appeared"]
    assert found.kind == "not-explained"
    assert "no profiler here" in "".join(found.unseen)


def test_layers_are_matched_through_the_graphs_pairs_where_names_were_counted_anew() -> None:
    import re

    from perfgate.gate.explain.layer_groups import Names, group_layers

    def renamed(text: str) -> str:
        return re.sub(r"(?<![A-Za-z])n(\d+)", lambda found: f"n{int(found[1]) + 1}", text)

    x0 = engine("x0")
    head = tuple(
        msgspec.structs.replace(
            layer, name=renamed(layer.name), onnx_nodes=tuple(map(renamed, layer.onnx_nodes))
        )
        for layer in x0
    )
    pairs = {f"n{i}": f"n{i + 1}" for i in range(176)}
    found = group_layers(x0, head, Names(pairs, frozenset(), frozenset()))
    assert {(len(group.base), len(group.head), group.kind) for group in found} == {(1, 1, "same")}
    by_name = group_layers(x0, head, Names({}, frozenset(), frozenset()))
    assert {group.kind for group in by_name} != {"same"}


def test_opaque_blocks_are_said_to_be_opaque() -> None:
    block = Layer(name="{ForeignNode[a...b]}", type="Myelin", onnx_nodes=("a", "b"))
    found = explain_case(CASE, Side(facts=facts((block,))), Side(facts=facts((block,))))
    assert any("whose inside is not shown" in text for text in found.unseen)


def test_a_lower_clock_of_head_alone_is_the_cause() -> None:
    from perfgate.records import Launch, Telemetry

    def launches(mhz: int, ns: int) -> tuple[Launch, ...]:
        told = Telemetry(sm_clock_mhz=(mhz, mhz))
        one = Launch(samples_ns=(ns,), wall_ns=ns, load_ns=1, first_inference_ns=1, telemetry=told)
        return (one,) * 5

    x0 = engine("x0")
    base = msgspec.structs.replace(side(x0), launches=launches(1980, 400_000))
    head = msgspec.structs.replace(side(x0), launches=launches(1800, 440_000))
    found = explain_case(CASE, base, head, profile=profiled(loads(x0, 1), loads(x0, 2, state=1.1)))
    assert found.kind == "clock/power"
    assert "1800 MHz" in found.cause
    assert [d.field for d in found.differences] == ["clocks.sm_mhz"]


def test_another_driver_alone_is_the_environment() -> None:
    from perfgate.records import Environment

    x0 = engine("x0")
    head = msgspec.structs.replace(
        side(x0, gated_ns=440_000), environment=Environment(device="d", toolchain="t", key={"driver": "2"})
    )
    found = explain_case(CASE, side(x0, gated_ns=400_000), head, profile=profiled(loads(x0, 1), loads(x0, 2)))
    assert found.kind == "environment"
    assert "driver 1 → 2" in found.cause


def test_timing_cache_misses_are_told() -> None:
    x0 = engine("x0")
    base = Side(facts=facts(x0, notes=("timing cache: loaded 9 bytes, grew by 0; 3 keys",)))
    head = Side(facts=facts(x0, notes=("timing cache: loaded 9 bytes, grew by 70; 3 keys",)))
    found = explain_case(CASE, base, head, profile=profiled(loads(x0, 1), loads(x0, 2)))
    assert [(d.base, d.head) for d in found.differences] == [
        ("every tactic was in it", "misses: it grew by 70 bytes")
    ]
