"""What a business case takes for granted: prices, load, limit, fleet, effort, and numbers given by a person.

Read strictly from TOML; `parse_prices` and `parse_inputs` name the file and the field of a mistake.
"""

from __future__ import annotations

import sys
from datetime import date
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from perfgate.errors import UsageError
from perfgate.records import Name, Positive, Record

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

STALE_DAYS = 180
Above0 = Annotated[float, Meta(gt=0, lt=1e15)]
AtLeast0 = Annotated[float, Meta(ge=0, lt=1e15)]
Day = Annotated[str, Meta(pattern=r"^\d{4}-\d\d-\d\d$")]
Money = Annotated[str, Meta(pattern=r"^[A-Z]{3}$")]
T = TypeVar("T")


class Instance(Record, kw_only=True):
    """A machine that can be bought by the hour, with all its GPUs."""

    name: Name
    gpu: Name
    gpus: Annotated[int, Meta(ge=1, le=1024)] = 1
    memory_gb: Above0 | None = None
    per_hour: Above0
    region: Name
    date: Day
    source: Name


class Prices(Record, kw_only=True):
    """A price list in one currency."""

    schema: Literal["perfgate-trt/prices/v1"]
    currency: Money
    instances: Annotated[tuple[Instance, ...], Meta(min_length=1, max_length=1000)]


class Load(Record):
    """Requests a second at the peak, and requests a month. A request is one item, such as an image."""

    peak_per_s: Above0 | None = None
    per_month: Above0 | None = None


class Limit(Record):
    """The promise: P99 of a request, queueing included; and how long a batch may wait for company."""

    p99_ms: Above0 | None = None
    max_wait_ms: AtLeast0 = 0.0


class FleetPlan(Record):
    """How machines are bought. `headroom` 0.3 is 30 % above the peak; `spare` are instances beyond (N+1).

    `exchange_rate` is units of `currency` for one of the price list's. `monthly_bill` is what the original
    costs today, in `currency`: where no peak is given, the fleet that it pays for tells the peak.
    """

    headroom: Annotated[float, Meta(ge=0, le=100)] = 0.3
    spare: Annotated[int, Meta(ge=0, le=1000)] = 0
    instance: str = ""
    hours_per_month: Annotated[float, Meta(gt=0, le=744)] = 730.0
    currency: Money | None = None
    exchange_rate: Above0 = 1.0
    monthly_bill: Above0 | None = None


class Effort(Record):
    """What the change costs once: engineer-days times a day's rate."""

    engineer_days: AtLeast0 | None = None
    day_rate: AtLeast0 | None = None


class Deployment(Record):
    """What people needed before, as they say it: working days or hours. `stages_s` are stages of the new way
    that perfgate does not time, such as `installation`, in seconds."""

    before_days: Above0 | None = None
    before_hours: Above0 | None = None
    hours_per_day: Annotated[float, Meta(gt=0, le=24)] = 8.0
    stages_s: Annotated[dict[Name, AtLeast0], Meta(max_length=20)] = {}

    @property
    def before(self) -> float | None:
        """Working hours, or None where nobody said."""
        if self.before_hours is not None:
            return self.before_hours
        return None if self.before_days is None else self.before_days * self.hours_per_day


class GivenStack(Record, kw_only=True):
    """A stack's numbers as somebody gives them: not measured by perfgate, and shown as such."""

    label: Name
    precision: str = ""
    latency_ms: Above0
    p99_ms: Above0
    per_s: Above0
    memory_gb: Above0 | None = None
    instance_month: Above0 | None = None
    deploy_hours: Above0 | None = None


class Given(Record):
    """Both stacks by hand, on a device."""

    device: Name
    original: GivenStack
    tensorrt: GivenStack


class Inputs(Record, kw_only=True):
    """Everything that a person adds to what was measured."""

    schema: Literal["perfgate-trt/value-inputs/v1"]
    title: str = ""
    load: Load = Load()
    limit: Limit = Limit()
    fleet: FleetPlan = FleetPlan()
    effort: Effort = Effort()
    deploy: Deployment = Deployment()
    given: Given | None = None


class CaseTerms(Record):
    """The numbers of one business case that are nobody's measurement."""

    inputs: Inputs
    instance: Instance | None = None
    currency: Money = "USD"
    price_age_days: int | None = None

    @property
    def stale(self) -> bool:
        """Whether the price is older than a price should be."""
        return self.price_age_days is not None and self.price_age_days > STALE_DAYS


DEFAULT_INPUTS = Inputs(schema="perfgate-trt/value-inputs/v1")


def parse_prices(data: bytes, where: str) -> Prices:
    """A price list. Raises `UsageError` that names the file and the field."""
    prices = _parse(data, Prices, where)
    for instance in prices.instances:
        _day(instance.date, where)
    return prices


def parse_inputs(data: bytes, where: str) -> Inputs:
    """The inputs of a business case. Raises `UsageError` that names the file and the field."""
    return _parse(data, Inputs, where)


def terms(inputs: Inputs, prices: Prices, device: str, today: date) -> CaseTerms:
    """The inputs with the machine that the device is bought as. Raises `UsageError` for an unknown instance.

    A price that is given for both stacks needs no list.
    """
    plan, given = inputs.fleet, inputs.given
    by_hand = given is not None and None not in (given.original.instance_month, given.tensorrt.instance_month)
    instance = None if by_hand else choose_instance(prices, device, plan.instance)
    currency = plan.currency or prices.currency
    if currency != prices.currency and plan.exchange_rate == 1.0 and instance is not None:
        raise UsageError(
            f"the prices are in {prices.currency} and {currency} is asked for, without a rate",
            where="fleet.exchange_rate",
            fix=f"say how many {currency} one {prices.currency} is",
        )
    age = None if instance is None else (today - _day(instance.date, instance.name)).days
    return CaseTerms(inputs=inputs, instance=instance, currency=currency, price_age_days=age)


def choose_instance(prices: Prices, device: str, name: str) -> Instance | None:
    """The machine named, or the first whose GPU the device's name has as a word (memory told apart)."""
    if name:
        found = next((one for one in prices.instances if one.name == name), None)
        if found is None:
            known = ", ".join(one.name for one in prices.instances)
            raise UsageError(f"no price for {name!r}", where="--instance", fix=f"one of {known[:600]}")
        return found
    words = device.upper().replace("-", " ").replace("_", " ").split()
    fit = [one for one in prices.instances if one.gpu.upper() in words]
    sized = [one for one in fit if one.memory_gb and f"{one.memory_gb:g}GB" in words]
    return next(iter(sized or fit), None)


def _parse(data: bytes, kind: type[T], where: str) -> T:
    try:
        return msgspec.convert(tomllib.loads(data.decode()), kind)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError, RecursionError) as error:
        raise UsageError(str(error), where=where, fix="see README, The business case") from error


def _day(text: str, where: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no date", where=where, fix="as in 2026-09-24") from error


def whole(count: float) -> Positive:
    """The least whole number that is enough; a quotient that is whole but for its rounding stays whole."""
    near = round(count)
    return max(1, near if abs(count - near) <= 1e-9 * max(1.0, abs(count)) else -int(-count // 1))
