"""Machines and money by hand."""

from __future__ import annotations

import pytest
from business_runs import SHIPPED, TODAY, case_terms

from perfgate.errors import UsageError
from perfgate.value.assumptions import (
    FleetPlan,
    Inputs,
    Load,
    choose_instance,
    parse_inputs,
    parse_prices,
    terms,
    whole,
)
from perfgate.value.business import Capacity
from perfgate.value.money import Machine, fleet, gpus_needed, peak_of_bill

PRICES = parse_prices(SHIPPED.read_bytes(), "prices.toml")


def capacity(per_s: float) -> Capacity:
    return Capacity(limit_ms=10, per_s=per_s, low=per_s, high=per_s, offline_per_s=per_s, source="simulated")


@pytest.mark.parametrize(
    ("peak", "headroom", "per_s", "gpus"),
    [(100, 0.0, 100, 1), (100, 0.3, 100, 2), (1000, 0.3, 130, 10), (1, 0.0, 1000, 1), (1000.1, 0, 100, 11)],
)
def test_gpus_are_peak_and_headroom_over_capacity_rounded_up(
    peak: float, headroom: float, per_s: float, gpus: int
) -> None:
    assert gpus_needed(peak, headroom, per_s) == gpus


def test_a_quotient_is_not_rounded_up_for_its_rounding_error() -> None:
    assert whole(0.1 * 3 / 0.1) == 3
    assert whole(1 / 3) == 1
    assert whole(3.0001) == 4


def test_eight_gpu_machines_are_bought_whole_and_a_spare_on_top() -> None:
    bought = Machine(gpus=8, per_month=1000.0)
    found = fleet(capacity(100), bought, 900, FleetPlan(headroom=0, spare=1), Load(per_month=1e6))
    assert found is not None
    assert (found.gpus, found.instances) == (9, 3)
    assert (found.per_month, found.per_year, found.per_million) == (3000, 36_000, 3000)
    assert found.free_share == pytest.approx(16 * 100 / 900 - 1)


def test_no_capacity_is_no_fleet_and_no_division_by_zero() -> None:
    assert fleet(capacity(0), Machine(1, 100.0), 50, FleetPlan(), Load()) is None
    assert peak_of_bill(1000, Machine(1, 100.0), capacity(0), FleetPlan()) is None


def test_a_bill_of_50_000_at_1200_is_42_instances() -> None:
    plan, bought = FleetPlan(headroom=0.3), Machine(1, 1200.0)
    peak = peak_of_bill(50_000, bought, capacity(1200), plan)
    assert peak == pytest.approx(42 * 1200 / 1.3)
    found = fleet(capacity(1200), bought, peak or 0, plan, Load())
    assert found is not None and found.instances == 42


def test_the_shipped_list_has_every_device_with_its_source() -> None:
    assert {one.gpu for one in PRICES.instances} == {"T4", "A10G", "L4", "L40S", "A100", "H100", "H200"}
    assert all(one.source and one.region and one.date for one in PRICES.instances)


@pytest.mark.parametrize(
    ("device", "name"),
    [
        ("Tesla T4", "AWS g4dn.xlarge"),
        ("NVIDIA A10G", "AWS g5.xlarge"),
        ("NVIDIA L4", "AWS g6.xlarge"),
        ("NVIDIA L40S", "AWS g6e.xlarge"),
        ("NVIDIA A100-SXM4-40GB", "AWS p4d.24xlarge"),
        ("NVIDIA A100-SXM4-80GB", "AWS p4de.24xlarge"),
        ("NVIDIA H100 80GB HBM3", "AWS p5.4xlarge"),
        ("NVIDIA H200", "AWS p5en.48xlarge"),
    ],
)
def test_a_device_is_bought_as_its_machine(device: str, name: str) -> None:
    found = choose_instance(PRICES, device, "")
    assert found is not None and found.name == name


def test_a_device_without_a_price_has_none_and_an_unknown_machine_is_refused() -> None:
    assert choose_instance(PRICES, "AMD EPYC", "") is None
    with pytest.raises(UsageError, match="no price for 'mine'"):
        choose_instance(PRICES, "NVIDIA H200", "mine")


def test_a_price_past_180_days_is_stale() -> None:
    inputs = case_terms().inputs
    fresh = terms(inputs, PRICES, "NVIDIA H200", TODAY)
    stale = terms(inputs, PRICES, "NVIDIA H200", TODAY.replace(year=2027, month=6))
    assert (fresh.stale, stale.stale) == (False, True)
    assert fresh.price_age_days == 61


def test_another_currency_needs_its_rate() -> None:
    with pytest.raises(UsageError, match="without a rate"):
        case_terms(fleet={"currency": "CNY"})
    assert case_terms(fleet={"currency": "CNY", "exchange_rate": 7.1}).currency == "CNY"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("schema = 'perfgate-trt/value-inputs/v1'\n[load]\npeak_per_s = -1", r"\$.load.peak_per_s"),
        ("schema = 'perfgate-trt/value-inputs/v1'\n[load]\npeak = 1", "unknown field `peak`"),
        ("schema = 'perfgate-trt/value-inputs/v1'\n[load]\npeak_per_s = nan", r"\$.load.peak_per_s"),
        ("schema = 'perfgate-trt/value-inputs/v1'\n[fleet]\nheadroom = inf", r"\$.fleet.headroom"),
        ("schema = 'perfgate-trt/prices/v1'", "schema"),
        ("load = [", "(?i)invalid|unclosed|end of"),
    ],
)
def test_a_mistake_in_the_inputs_is_named(text: str, told: str) -> None:
    with pytest.raises(UsageError, match=told) as caught:
        parse_inputs(text.encode(), "mine.toml")
    assert caught.value.where == "mine.toml"
    assert isinstance(parse_inputs(b"schema = 'perfgate-trt/value-inputs/v1'", ""), Inputs)


def test_a_price_list_with_a_day_that_is_none_is_refused() -> None:
    with pytest.raises(UsageError, match="'2026-02-30' is no date"):
        parse_prices(SHIPPED.read_bytes().replace(b"2026-09-24", b"2026-02-30"), "prices.toml")
