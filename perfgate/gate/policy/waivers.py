"""Waivers: regressions that were accepted until a day, `baselines/waivers.toml`.

[[waiver]]
case = "resnet50/fp16/b8"
reason = "the new attention needs it"
owner = "ana@example.org"
link = "https://example.org/issues/7"
expires = 2027-01-31
up_to = 0.05        # optional: covers no slowdown beyond 5 %
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from perfgate.errors import DataError
from perfgate.gate.promotable import ALREADY_ON_BASE
from perfgate.records import CaseResult, Judgement, Name, Record, Verdict
from perfgate.util.files import TEXT_LIMIT_BYTES, parse_toml, read_bytes
from perfgate.util.wording import change

WAIVERS_NAME = "waivers.toml"
# Time enough to mend it or to ask for more before it fails.
SOON_DAYS = 14
_WAIVABLE = (Verdict.REGRESSION, Verdict.MISSING, Verdict.INCONCLUSIVE)


class Waiver(Record):
    """One accepted regression or removal. `up_to` is the largest slowdown that it covers, as a share."""

    case: Name
    reason: Name
    owner: Name
    link: Name
    expires: date
    up_to: Annotated[float, Meta(gt=0, lt=100)] | None = None

    def __str__(self) -> str:
        limit = "" if self.up_to is None else f", up to {self.up_to * 100:g} %"
        return f"until {self.expires}{limit}, {self.owner}: {self.reason} ({self.link})"


class _File(Record):
    waiver: Annotated[tuple[Waiver, ...], Meta(max_length=1_000)] = ()


def read_waivers(baselines: Path) -> tuple[Waiver, ...]:
    """The waivers beside the baselines; none where there is no file. Raises `DataError`."""
    path = baselines / WAIVERS_NAME
    if not path.is_file():
        return ()
    fix = "[[waiver]] with case, reason, owner, link, expires = 2027-01-31; see README, Baselines"
    try:
        table = parse_toml(read_bytes(path, limit_bytes=TEXT_LIMIT_BYTES))
        found = msgspec.convert(table, _File).waiver
    except (ValueError, RecursionError) as error:
        raise DataError(f"is no list of waivers: {error}", where=path, fix=fix) from error
    cases = [one.case for one in found]
    if repeated := next((case for case in cases if cases.count(case) > 1), None):
        raise DataError(f"waives {repeated!r} twice", where=path, fix="one waiver a case")
    return found


def waive(case: CaseResult, waivers: Sequence[Waiver], today: date) -> CaseResult:
    """The case with its waiver applied.

    A waiver in force makes a red case WAIVED, unless it is slower than the waiver covers. One that is over
    covers nothing, and lets a loss that is already on base pass no longer: it was accepted until that day.
    """
    waiver = next((one for one in waivers if one.case == case.case.id), None)
    judgement = case.judgement
    if waiver is None or judgement is None:
        return case
    over = today > waiver.expires
    red = judgement.verdict in _WAIVABLE
    verdict, code = judgement.verdict, judgement.code
    if over and judgement.code == ALREADY_ON_BASE:
        verdict, code, note = (
            Verdict.REGRESSION,
            "waiver-expired",
            f"its waiver is over since {waiver.expires}",
        )
    elif over and red:
        note = f"its waiver is over since {waiver.expires}"
    elif red and (beyond := _beyond(judgement, waiver)):
        note = beyond
    elif red:
        verdict, code, note = Verdict.WAIVED, code or "waived", f"waived {waiver}"
    else:
        return case
    told = msgspec.structs.replace(
        judgement, verdict=verdict, code=code, reason=f"{judgement.reason}; {note}"
    )
    return msgspec.structs.replace(case, judgement=told)


def _beyond(judgement: Judgement, waiver: Waiver) -> str:
    """Why a waiver does not cover what was seen, or an empty string."""
    if waiver.up_to is None or judgement.ratio is None or judgement.ratio.estimate <= 1 + waiver.up_to:
        return ""
    return f"{change(judgement.ratio.estimate)} is more than its waiver covers ({waiver.up_to * 100:g} %)"


def reminders(waivers: Sequence[Waiver], today: date) -> tuple[str, ...]:
    """What is to be said of waivers that are over or soon will be, first things first."""
    found = []
    for one in sorted(waivers, key=lambda one: one.expires):
        days = (one.expires - today).days
        if days < 0:
            found.append(
                f"the waiver of {one.case} is over since {one.expires} ({one.owner}): mend or renew it"
            )
        elif days <= SOON_DAYS:
            found.append(f"the waiver of {one.case} ends on {one.expires} ({one.owner}): {one.link}")
    return tuple(found)
