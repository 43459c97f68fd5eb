"""What a business case takes for granted, said under its table; and what a reader must be warned of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from perfgate.report import format as fmt
from perfgate.report.i18n import gettext as _
from perfgate.report.value import wording as words
from perfgate.value.business import BusinessCase


def warnings(case: BusinessCase) -> Iterator[str]:
    """What would mislead if it were not said first."""
    terms = case.terms
    if terms.stale and terms.instance is not None:
        yield (
            _("The price of %(name)s is %(days)s days old (%(date)s): look it up again.")
            % {
                "name": fmt.line(terms.instance.name),
                "days": terms.price_age_days,
                "date": terms.instance.date,
            }
        )
    if case.original.precision != case.tensorrt.precision and case.original.source != "given":
        yield (
            _("The original ran in %(old)s, %(name)s in %(new)s: check the accuracy before you switch.")
            % {
                "name": words.stack_name(case.tensorrt),
                "old": case.original.precision.upper(),
                "new": case.tensorrt.precision.upper(),
            }
        )
    old, new = case.original.tf32, case.tensorrt.tf32
    if old and new and old != new:
        yield (
            _("The original ran with %(old)s, %(name)s with %(new)s: that is part of the ratio.")
            % {"name": words.stack_name(case.tensorrt), "old": _(words.TF32[old]), "new": _(words.TF32[new])}
        )
    if case.saving_month is not None and case.saving_month == 0:
        yield (
            _("Both stacks need the same machines for this peak: the saving is zero, what is won is room.")
        )


def assumptions(case: BusinessCase) -> tuple[str, ...]:
    """Every number that is not a measurement, in the order in which it is used."""
    return tuple(one for one in (*_load(case), *_simulation(case), *_price(case), *_rest(case)) if one)


def _load(case: BusinessCase) -> Iterator[str]:
    inputs = case.terms.inputs
    if case.peak_per_s is None:
        yield (_("No peak load is given, so no machines are counted: --peak says the requests a second."))
    elif case.peak_from_bill and inputs.fleet.monthly_bill is not None:
        yield (
            _(
                "Peak %(peak)s requests a second: what the %(count)s instances of today's bill, "
                "%(bill)s, carry."
            )
            % {
                "peak": words.count(case.peak_per_s),
                "count": words.count(case.original.fleet.instances) if case.original.fleet else fmt.NOTHING,
                "bill": words.money(inputs.fleet.monthly_bill, case.terms.currency),
            }
        )
    else:
        yield (_("Peak %(peak)s requests a second, given.") % {"peak": words.count(case.peak_per_s)})
    if case.peak_per_s is not None:
        yield (
            _("GPUs = peak × (1 + %(headroom)s headroom) / capacity, rounded up; spare instances: %(spare)s.")
            % {"headroom": words.percents(inputs.fleet.headroom), "spare": inputs.fleet.spare}
        )
    if inputs.load.per_month is not None:
        yield (
            _("Cost of a million requests = cost a month / requests a month, given as %(count)s.")
            % {"count": words.count(inputs.load.per_month)}
        )


def _simulation(case: BusinessCase) -> list[str]:
    capacity = case.tensorrt.capacity
    if capacity is None:
        return [_("No limit on P99 is given, so no capacity is computed: --p99-ms says it.")]
    limit = _("Limit: 99 of 100 requests answered within %(limit)s, queueing included.") % {
        "limit": words.milliseconds(capacity.limit_ms)
    }
    if capacity.source == "given":
        return [limit, _("Capacity is the given throughput where the given P99 is within the limit.")]
    sides = [one.capacity for one in (case.original, case.tensorrt) if one.capacity]
    return [
        limit,
        _(
            "Capacity is simulated: Poisson arrivals, one batch at a time of at most %(batches)s requests, "
            "a request held back for %(wait)s at most. Whole launches are replayed at the measured batches, "
            "%(measured)s; a batch of a size between them takes a time between theirs, or as a CUDA graph, "
            "which holds one shape, is padded to the next; smaller ones are padded. "
            "%(seeds)s seeds, the same arrivals for both stacks; in brackets their 5th to 95th percentile. "
            "The offline bound is full batches back to back."
        )
        % {
            "batches": _both([(one.largest_batch,) for one in sides]),
            "wait": words.milliseconds(case.terms.inputs.limit.max_wait_ms),
            "measured": _both([one.measured_batches for one in sides]),
            "seeds": capacity.seeds,
        },
    ]


def _both(batches: Sequence[Sequence[int]]) -> str:
    """Batch sizes of the original and the other stack, once where they are the same."""
    return " | ".join(dict.fromkeys(", ".join(map(str, one)) for one in batches))


def _price(case: BusinessCase) -> list[str]:
    terms, instance = case.terms, case.terms.instance
    if instance is None:
        given = "given" in (case.original.source, case.tensorrt.source)
        known = case.original.instance_month is not None
        if given and known:
            return [_("Costs of an instance a month are given.")]
        return [_("No price is known for this device: --prices names a list, --instance a machine in it.")]
    found = [
        _(
            "%(name)s with %(gpus)s GPUs: %(price)s an hour, %(region)s, %(date)s (%(source)s); "
            "%(hours)s h a month."
        )
        % {
            "name": fmt.line(instance.name),
            "gpus": instance.gpus,
            "price": f"{instance.per_hour:g}",
            "region": fmt.line(instance.region),
            "date": instance.date,
            "source": fmt.line(instance.source),
            "hours": f"{terms.inputs.fleet.hours_per_month:g}",
        }
    ]
    if terms.inputs.fleet.exchange_rate != 1.0:
        found.append(
            _("Prices are shown in %(currency)s at %(rate)s for one of the list's currency.")
            % {"currency": terms.currency, "rate": f"{terms.inputs.fleet.exchange_rate:g}"}
        )
    return found


def _rest(case: BusinessCase) -> Iterator[str]:
    inputs = case.terms.inputs
    if case.original.source == "measured" or case.tensorrt.source == "measured":
        yield (
            _(
                "Measured by perfgate: latency at the smallest batch, throughput and memory at the batch "
                "with the most items a second, on a GPU with the copies from and to the host."
            )
        )
    if "stored" in (case.original.source, case.tensorrt.source):
        yield (_("Stored numbers are a baseline's medians: they hold no samples, so no tail is replayed."))
    if case.original.source == "given":
        yield (_("All numbers of both stacks are given by a person; perfgate measured none of them."))
    if inputs.effort.engineer_days is not None and inputs.effort.day_rate is not None:
        yield (
            _("Effort: %(days)s engineer-days at %(rate)s a day, given.")
            % {
                "days": f"{inputs.effort.engineer_days:g}",
                "rate": words.money(inputs.effort.day_rate, case.terms.currency),
            }
        )
    if inputs.deploy.before is not None:
        yield (
            _("What people needed to deploy before is their own figure; a day counts %(hours)s hours.")
            % {"hours": f"{inputs.deploy.hours_per_day:g}"}
        )
