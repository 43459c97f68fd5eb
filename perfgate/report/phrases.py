"""The gate's own sentences, as patterns: what a results file says in English, said in another language.

A phrase that is not here is no fault: the report then shows the English text and marks it as such. The
catalogue translates each pattern; its placeholders are found by a regular expression made from it.
"""

from __future__ import annotations

import functools
import re

from perfgate.report.i18n import N_, gettext, language

_LONGEST = 1_000
_DEPTH = 4
# What a placeholder may hold, by its name; any other takes as little text as fits.
_KINDS = {
    "moved": r"[^()]{1,80}",  # bounded, or a text of nothing but parentheses would be tried for long
    "low": r"[^()]{1,80}",
    "high": r"[^()]{1,80}",
    "count": r"\d+",
    "total": r"\d+",
    "number": r"[+−-]?[\d.]+",
    "share": r"[\d.]+ %",
    "ignore": r"[\d.]+ %",
    "signed": r"[+-][\d.]+ %",
    "times": r"[\d.e+]+",
    "amount": r"[\d.e+]+(?: [A-Za-zµ/]+)?",
    "subject": r"The only case|All \d+ cases|\d+ of \d+ cases",
    "cases": r"The only case is|All \d+ cases are|\d+ of \d+ cases (?:is|are)",
}
# Placeholders that hold phrases themselves.
_INNER = frozenset(
    {"cases", "subject", "how", "seen", "low", "high", "why", "share", "ignore", "signed", "said", "moved"}
)

PHRASES = (
    # The summary's sentence.
    N_("%(cases)s slower than allowed; the worst is %(case)s: %(how)s."),
    N_("%(cases)s new: nothing is stored for this machine to compare with."),
    N_("%(cases)s new: nothing is stored to compare it with."),
    N_("%(cases)s new: nothing is stored to compare them with."),
    N_("%(cases)s less right than the baseline: %(case)s: %(said)s."),
    N_("%(subject)s failed."),
    N_("%(cases)s missing: a baseline was not compared."),
    N_("%(cases)s undecided."),
    N_("%(cases)s not comparable with the stored baseline."),
    N_("%(subject)s was not measured validly."),
    N_("%(subject)s were not measured validly."),
    N_("%(cases)s waived."),
    N_("%(cases)s faster than the baseline."),
    N_("%(cases)s as fast as before."),
    N_("%(cases)s unchanged, so nothing had to be timed."),
    N_("Interrupted: what was measured until then is kept."),
    N_("Nothing was measured: no case was selected that runs here."),
    N_("Nothing to measure here: share %(part)s of %(total)s cases has none that runs."),
    N_("The only case is"),
    N_("All %(total)s cases are"),
    N_("%(count)s of %(total)s cases is"),
    N_("%(count)s of %(total)s cases are"),
    N_("The only case"),
    N_("All %(total)s cases"),
    N_("%(count)s of %(total)s cases"),
    # A change in words.
    N_("takes %(times)s × as long"),
    N_("%(share)s slower"),
    N_("%(share)s faster"),
    N_("no change"),
    N_("%(number)s %%"),
    # Reasons.
    N_("%(seen)s; clearly under the %(share)s to catch"),
    N_("%(seen)s; clearly beyond the %(share)s to ignore"),
    N_("%(seen)s; clearly above the %(share)s to ignore"),
    N_("%(seen)s; neither under catch nor above ignore: more launches would tell"),
    N_(
        "%(said)s by fresh launches; %(times)s times likelier %(share)s slower or more "
        "than %(ignore)s or less"
    ),
    N_(
        "%(said)s by fresh launches; %(times)s times likelier %(ignore)s slower or less "
        "than %(share)s or more"
    ),
    N_(
        "%(said)s by fresh launches; the launches tell %(share)s to catch from %(ignore)s to ignore "
        "by %(times)s to 1 only"
    ),
    N_("%(said)s; it would take about %(count)s more launches a side"),
    N_("%(said)s; %(count)s builds of head lie %(share)s apart"),
    N_("a suspect that was not confirmed: %(said)s"),
    N_("%(said)s; base itself is %(how)s than its baseline, so head is not to blame"),
    N_("%(said)s; head alone clocks lower, %(number)s MHz where base has %(base)s: it draws more power"),
    N_("both sides moved together by %(share)s meanwhile: the machine changed; run again"),
    N_("%(said)s; fresh launches of head against the stored ones, because %(why)s"),
    N_("%(signed)s; lower-is-better, floor %(share)s"),
    N_("%(signed)s; lower-is-better, floor %(share)s and %(amount)s"),
    N_("%(signed)s; higher-is-better, floor %(share)s"),
    N_("%(signed)s; higher-is-better, floor %(share)s and %(amount)s"),
    N_(
        "simulated p99 with queueing at %(load)s queries/s is %(number)s ms, "
        "promised are service_p99_ms = %(limit)s"
    ),
    N_("%(load)s queries/s cannot be served: one lane serves %(number)s"),
    N_("interrupted before it was confirmed"),
    N_("%(moved)s (%(low)s to %(high)s)"),
    N_("same model, recipe, inputs and environment as the baseline: nothing to time"),
    N_("the engine is the baseline's, byte for byte, and is used alike: nothing to time"),
    N_("no baseline is stored for this device and toolchain"),
    N_("no baseline is stored for this device and toolchain; not to be promoted: %(why)s"),
    N_("only %(count)s of %(total)s launches are valid: %(why)s; run again"),
    N_("the run was cut short"),
    N_("the run ended before its first launch"),
    N_("interrupted before its first launch"),
    N_("precision not realised: %(text)s"),
    N_("the answers are wrong: %(text)s"),
    N_("the answers are worse than the baseline's: %(text)s"),
    N_("the baseline was measured with another %(names)s; numbers are not compared across"),
    N_("measured as '%(head)s', the baseline as '%(base)s'"),
    N_("has a baseline but is not run: %(text)s"),
    N_("%(path)s has this case, but no model spec makes it any more"),
    N_("stored only for %(name)s; numbers are not compared across toolchains"),
    N_("%(said)s; p99 not judged: a launch has fewer than %(count)s samples"),
    N_("p99 is %(number)s ms, above the promise engine_p99_ms = %(limit)s"),
    # What a confirmation notes.
    N_("base's engine and head's are the same bytes"),
    N_(
        "no timing cache told %(share)s of an engine's tactics or more: %(ignore)s more is ignored, "
        "for the luck of the build"
    ),
    N_("build %(count)s of head: %(signed)s"),
    N_("base is the fastest of %(count)s engines in %(total)s builds"),
    N_("base is the baseline's own engine, from the engine cache, because %(text)s"),
    N_("base's model or recipe is not the one that the baseline was promoted from"),
    N_("base does not reproduce its recorded engine: %(name)s in place of %(other)s"),
    N_("base is used otherwise than head: inputs, shape or protocol differ"),
    N_("no base engine to launch: %(text)s"),
    N_("measured again because far outside, and not recurring: %(count)s launches"),
    N_("invalid and taken again: %(count)s launches"),
    # Next steps: the words before the command.
    N_("measure it alone: "),
    N_("if it is meant: "),
    N_("if they are meant: "),
    N_("of those that are meant, some at a time: "),
    N_("if it was removed on purpose: "),
    N_("if they were removed on purpose: "),
    N_("of those that were removed on purpose, some at a time: "),
    N_("run again on a quiet machine: "),
    N_("commit and run again before you promote: uncommitted changes are refused"),
    N_("store these numbers: "),
    N_("store these numbers (--require-baseline makes this fail): "),
    N_("keep the gain: "),
    N_("store these numbers, some at a time: "),
    N_("store these numbers, some at a time (--require-baseline makes this fail): "),
    N_("keep the gain, some at a time: "),
    N_("take more launches: "),
    N_("after a change of toolchain: "),
    N_("perfgate merge joins this with the other shards"),
    N_("see the failed case's message above; perfgate doctor tells what this machine lacks"),
)


def match(text: str) -> tuple[str, dict[str, str], tuple[str, ...]] | None:
    """The phrase that `text` is, what its placeholders hold, and which of these are phrases again."""
    if len(text) > _LONGEST:
        return None
    for phrase, pattern in _patterns():
        if found := pattern.fullmatch(text):
            parts = found.groupdict()
            return phrase, parts, tuple(name for name in parts if name in _INNER)
    return None


@functools.cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((phrase, re.compile(_pattern(phrase))) for phrase in PHRASES)


def _pattern(phrase: str) -> str:
    def group(found: re.Match[str]) -> str:
        return f"(?P<{found[1]}>{_KINDS.get(found[1], '.+?')})"

    literal = re.escape(phrase.replace("%%", "%"))
    return re.sub(r"%\\\((\w+)\\\)s", group, literal)


class Untranslated(str):
    """Text that stays English in a report of another language."""

    __slots__ = ()


def translate(text: str) -> str:
    """A sentence of the gate in the language in use, or `Untranslated` where no phrase is known for it."""
    if not text or language() == "en":
        return text
    return _translated(text, _DEPTH) or Untranslated(text)


def _translated(text: str, depth: int) -> str | None:
    found = match(text)
    if found is None:
        return None
    phrase, parts, inner = found
    for name in inner if depth else ():
        parts[name] = _translated(parts[name], depth - 1) or parts[name]
    return gettext(phrase) % parts if parts else gettext(phrase)
