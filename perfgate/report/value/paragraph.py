"""The case in one paragraph of plain words, made from the numbers."""

from __future__ import annotations

from perfgate.report import format as fmt
from perfgate.report.i18n import gettext as _
from perfgate.report.value import wording as words
from perfgate.value.business import BusinessCase


def paragraph(case: BusinessCase) -> str:
    """Latency, capacity, money, payback and deployment, each where it is known."""
    sentences = (_latency(case), _capacity(case), _money(case), _payback(case), _deployment(case))
    return _joined([one for one in sentences if one])


def _joined(sentences: list[str]) -> str:
    text = sentences[0]
    for sentence in sentences[1:]:
        text = _("%(first)s %(second)s") % {"first": text, "second": sentence}
    return text


def _latency(case: BusinessCase) -> str:
    line = next(one for one in case.lines if one.metric == "latency_ms")
    return _(
        "On %(device)s, %(name)s answers one request in %(new)s on average, where %(original)s needs "
        "%(old)s: %(change)s."
    ) % {
        "device": fmt.line(case.device),
        "name": words.stack_name(case.tensorrt),
        "original": fmt.line(case.original.label),
        "new": words.milliseconds(case.tensorrt.latency_ms),
        "old": words.milliseconds(case.original.latency_ms),
        "change": words.direction(line) or _("no change"),
    }


def _capacity(case: BusinessCase) -> str:
    old, new = case.original.capacity, case.tensorrt.capacity
    if old is None or new is None:
        return ""
    values = {
        "name": words.stack_name(case.tensorrt),
        "limit": words.milliseconds(new.limit_ms),
        "new": words.count(new.per_s),
        "old": words.count(old.per_s),
    }
    texts = {
        (True, True): _(
            "One GPU serves %(new)s requests a second with 99 of 100 answered within %(limit)s, before "
            "%(old)s."
        ),
        (False, True): _(
            "One GPU serves %(new)s requests a second with 99 of 100 answered within %(limit)s, which the "
            "original cannot do on this GPU at any load."
        ),
        (True, False): _(
            "The original serves %(old)s requests a second within %(limit)s; %(name)s cannot meet that limit "
            "on this GPU."
        ),
        (False, False): _("Neither stack can answer 99 of 100 requests within %(limit)s on this GPU."),
    }
    return texts[old.met, new.met] % values


def _money(case: BusinessCase) -> str:
    old, new, saving = case.original.fleet, case.tensorrt.fleet, case.saving_month
    if old is None or new is None or saving is None or case.peak_per_s is None:
        return ""
    currency = case.terms.currency
    values = {
        "name": words.stack_name(case.tensorrt),
        "peak": words.count(case.peak_per_s),
        "old": words.count(old.instances),
        "new": words.count(new.instances),
        "month": words.money(abs(saving), currency),
        "year": words.money(12 * abs(saving), currency),
        "free": words.percents(new.free_share),
        "before": words.percents(old.free_share),
    }
    if saving > 0:
        text = _(
            "A peak of %(peak)s requests a second needs %(new)s instances instead of %(old)s, which saves "
            "%(month)s a month and %(year)s a year."
        )
    elif saving < 0:
        text = _(
            "A peak of %(peak)s requests a second needs %(new)s instances instead of %(old)s, which costs "
            "%(month)s a month and %(year)s a year more."
        )
    elif old.instances == new.instances:
        text = _(
            "A peak of %(peak)s requests a second fits on %(new)s instances with either stack, so nothing is "
            "saved today; %(name)s leaves %(free)s of the peak free, the original %(before)s."
        )
    else:
        text = _("At a peak of %(peak)s requests a second both stacks cost the same, so nothing is saved.")
    return text % values


def _payback(case: BusinessCase) -> str:
    effort, months = case.terms.inputs.effort, case.payback_months
    if months is None or effort.engineer_days is None:
        return ""
    return _("The effort of %(days)s engineer-days is paid back in %(time)s.") % {
        "days": f"{effort.engineer_days:g}",
        "time": words.months(months),
    }


def _deployment(case: BusinessCase) -> str:
    old, new = case.original.deploy_hours, case.tensorrt.deploy_hours
    if old is None or new is None:
        return ""
    values = {"old": words.hours(old), "new": words.hours(new)}
    if new <= old:
        return _("To deploy takes %(new)s, before %(old)s.") % values
    return _("To deploy takes longer: %(new)s, before %(old)s.") % values
