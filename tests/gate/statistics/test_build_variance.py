"""Which builds are drawn, which of them is gated, and what is said of their spread."""

from __future__ import annotations

import math
from typing import Literal

import msgspec
import pytest
from hypothesis import given, strategies as st

from perfgate.gate.statistics.build_variance import (
    fastest,
    over_builds,
    untuned_share,
    untuned_share_between,
    widened,
)
from perfgate.gate.statistics.noise import BUILD_CV
from perfgate.gate.statistics.sequential import Decision
from perfgate.records import EngineFacts, Interval, RebuildPolicy, Tolerance, Verdict

Pick = Literal["best", "any"]
GIVEN = Tolerance(ignore=0.005, catch=0.02)
PASS, RED, BETTER = Verdict.PASS, Verdict.REGRESSION, Verdict.IMPROVEMENT


def decision(verdict: Verdict | None, ratio: float = 1.0) -> Decision:
    return Decision(
        verdict=verdict,
        ratio=Interval(estimate=ratio, low=ratio, high=ratio, confidence=0.95),
        log_likelihood=0.0,
        needed=0,
        tolerance=GIVEN,
    )


SLOW, GOOD, OPEN = decision(RED, 1.17), decision(PASS, 1.0), decision(None, 1.012)


@pytest.mark.parametrize(
    ("drawn", "pick", "index", "verdict", "code"),
    [
        ([SLOW, GOOD], "best", 1, PASS, "build"),
        ([SLOW, OPEN, GOOD], "best", 2, PASS, "build"),
        ([SLOW, SLOW], "best", 0, RED, ""),
        ([SLOW, OPEN], "best", 1, None, "build"),
        ([SLOW, decision(BETTER, 0.9)], "best", 1, BETTER, "build"),
        ([GOOD, GOOD], "any", 0, PASS, ""),
        ([GOOD, SLOW], "any", 1, Verdict.INCONCLUSIVE, "build"),
        ([SLOW, decision(RED, 1.05)], "any", 0, RED, ""),
    ],
)
def test_which_build_is_gated(
    drawn: list[Decision], pick: Pick, index: int, verdict: Verdict | None, code: str
) -> None:
    found = over_builds(drawn, RebuildPolicy(builds=len(drawn), pick=pick))
    if (drawn, pick) != ([GOOD, GOOD], "any"):
        assert found[0] == index
    assert (found[1].verdict, found[1].code) == (verdict, code)
    estimates = [one.ratio.estimate for one in drawn]
    apart = (max(estimates) / min(estimates) - 1) * 100
    assert found[1].note == f"{len(drawn)} builds of head lie {apart:.1f} % apart"


def test_one_build_is_what_it_is() -> None:
    assert over_builds([SLOW], RebuildPolicy()) == (0, SLOW)


def test_where_all_builds_are_asked_for_fewer_that_pass_are_undecided() -> None:
    decision = over_builds([GOOD, GOOD], RebuildPolicy(builds=3, pick="any"))[1]
    assert (decision.verdict, decision.code) == (Verdict.INCONCLUSIVE, "build")
    assert decision.note == "2 of 3 builds could be held"
    assert over_builds([SLOW, SLOW], RebuildPolicy(builds=3, pick="any"))[1].verdict is RED


@given(st.lists(st.sampled_from([SLOW, GOOD, OPEN]), min_size=1, max_size=8))
def test_best_is_red_only_where_every_build_is_and_any_never_passes_a_red_one(drawn: list[Decision]) -> None:
    best, every = (over_builds(drawn, RebuildPolicy(pick=pick))[1].verdict for pick in ("best", "any"))
    assert (best is RED) == all(one.verdict is RED for one in drawn)
    if any(one.verdict is RED for one in drawn):
        assert every is not PASS


@pytest.mark.parametrize(
    ("cache_bytes", "loaded", "share"),
    [(None, 0, 0), (0, 0, 0), (10, 10, 0), (40, 30, 0.25), (10, 0, 1), (10, 12, 0)],
)
def test_the_share_that_the_timing_cache_did_not_tell(
    cache_bytes: int | None, loaded: int, share: float
) -> None:
    facts = EngineFacts(
        digest="ab" * 32,
        engine_bytes=1,
        timing_cache_bytes=cache_bytes,
        timing_cache_loaded_bytes=loaded,
    )
    assert (
        untuned_share(facts)
        == untuned_share_between(facts, None)
        == untuned_share_between(None, facts)
        == share
    )
    assert untuned_share_between(facts, facts) == 0, "the same bytes"
    assert untuned_share(None) == untuned_share_between(None, None) == 0
    untold = msgspec.structs.replace(facts, timing_cache_loaded_bytes=None)
    assert untuned_share(untold) == 0, "an earlier perfgate's"


def test_the_tolerance_is_wider_by_what_the_luck_of_builds_reaches_beyond_its_middle() -> None:
    assert widened(GIVEN, 0) == widened(GIVEN, 0.1) == GIVEN
    for share in (0.2, 1.0):
        wide = widened(GIVEN, share)
        assert wide.catch - wide.ignore == pytest.approx(GIVEN.catch - GIVEN.ignore)
        assert (wide.ignore + wide.catch) / 2 == pytest.approx(3 * math.sqrt(2 * share) * BUILD_CV)
    coarse = Tolerance(ignore=0.1, catch=0.3)
    assert widened(coarse, 1.0) == coarse


def test_the_fastest_build_by_the_mean_of_logs() -> None:
    assert fastest([[1.0, 4.0], [1.9, 1.9], [math.e]]) == 1
    assert fastest([[], [5.0]]) == 1
