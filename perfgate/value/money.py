"""From a capacity to machines and money: pure arithmetic, whole machines, no division by zero."""

from __future__ import annotations

from dataclasses import dataclass

from perfgate.value.assumptions import CaseTerms, FleetPlan, Load, whole
from perfgate.value.business import Capacity, Figures, Fleet, Swing

LOADS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 4.0)
PRICES = (0.5, 0.75, 1.0, 1.25, 1.5)


@dataclass(frozen=True)
class Machine:
    """What is bought: its GPUs, and a month of it in the case's currency."""

    gpus: int
    per_month: float


def machine(terms: CaseTerms, given_month: float | None) -> Machine | None:
    """The machine of a stack: the one whose price somebody gave, else the price list's, if any."""
    if given_month is not None:
        return Machine(gpus=1, per_month=given_month)
    if terms.instance is None:
        return None
    plan = terms.inputs.fleet
    return Machine(
        gpus=terms.instance.gpus,
        per_month=terms.instance.per_hour * plan.hours_per_month * plan.exchange_rate,
    )


def gpus_needed(peak_per_s: float, headroom: float, capacity_per_s: float) -> int:
    """GPUs = ceil(peak x (1 + headroom) / capacity at the limit)."""
    return whole(peak_per_s * (1 + headroom) / capacity_per_s)


def fleet(
    capacity: Capacity, bought: Machine, peak_per_s: float, plan: FleetPlan, load: Load
) -> Fleet | None:
    """Whole machines for the peak, spare ones on top. None where the limit cannot be met at all."""
    if not capacity.met:
        return None
    gpus = gpus_needed(peak_per_s, plan.headroom, capacity.per_s)
    working = whole(gpus / bought.gpus)
    instances = working + plan.spare
    per_month = instances * bought.per_month
    return Fleet(
        gpus=gpus,
        instances=instances,
        gpus_per_instance=bought.gpus,
        instance_month=bought.per_month,
        per_month=per_month,
        per_year=12 * per_month,
        per_million=None if load.per_month is None else per_month / load.per_month * 1e6,
        free_share=working * bought.gpus * capacity.per_s / peak_per_s - 1,
    )


def peak_of_bill(bill: float, bought: Machine, capacity: Capacity, plan: FleetPlan) -> float | None:
    """The peak that today's fleet is bought for: the whole machines that the bill pays, less the spare."""
    working = whole(bill / bought.per_month) - plan.spare
    if not capacity.met or working < 1:
        return None
    return working * bought.gpus * capacity.per_s / (1 + plan.headroom)


def swings(original: Figures, tensorrt: Figures, peak_per_s: float, plan: FleetPlan) -> tuple[Swing, ...]:
    """What both fleets cost a month as the load, or the price, is another than assumed."""

    def cost(side: Figures, factor: float) -> float:
        assert side.capacity is not None and side.instance_month is not None
        bought = Machine(side.gpus_per_instance, side.instance_month)
        found = fleet(side.capacity, bought, peak_per_s * factor, plan, Load())
        assert found is not None
        return found.per_month

    one, other = cost(original, 1), cost(tensorrt, 1)
    loads = [
        Swing(what="load", factor=f, original=cost(original, f), tensorrt=cost(tensorrt, f)) for f in LOADS
    ]
    prices = [Swing(what="price", factor=f, original=f * one, tensorrt=f * other) for f in PRICES]
    return (*loads, *prices)
