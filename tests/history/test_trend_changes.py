import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from perfgate.history.change_points import (
    MIN_NIGHTS,
    NOISE_FLOOR,
    change_points,
    environment_changes,
    noise,
)
from perfgate.history.trend import case_trends
from perfgate.records.trend import LevelChange, Point


def nights(
    values: Sequence[float],
    environment: Callable[[int], str] = lambda night: "e",
    device: str = "h200",
    commit: Callable[[int], str] = lambda night: f"{night:040x}",
) -> list[Point]:
    return [
        Point(
            run_id=f"r{night}",
            created=f"2026-01-{night % 28 + 1:02d}T00:00:00Z",
            commit=commit(night),
            environment=environment(night),
            device=device,
            toolchain="t",
            verdict="PASS",
            value=float(value),
            values=(float(value),),
        )
        for night, value in enumerate(values)
    ]


def noisy(count: int, seed: int, sigma: float = 0.005, level: float = 1e5) -> list[float]:
    draws = np.random.default_rng(seed).normal(0, sigma, count)
    return [level * math.exp(draw) for draw in draws]


def stepped(count: int, at: int, ratio: float, seed: int = 0, sigma: float = 0.005) -> list[float]:
    return [
        value * (ratio if night >= at else 1) for night, value in enumerate(noisy(count, seed, sigma=sigma))
    ]


def direction(change: LevelChange) -> str:
    return "up" if change.ratio.estimate > 1 else "down"


@pytest.mark.parametrize("ratio", [1.02, 1.03, 1.05, 1.5, 0.97])
def test_a_known_step_is_found_with_its_size_and_commits(ratio: float) -> None:
    (found,) = change_points(nights(stepped(120, 70, ratio, sigma=0.002)))
    assert abs(found.index - 70) <= 1
    assert found.ratio.low < ratio < found.ratio.high and abs(found.ratio.estimate / ratio - 1) < 0.003
    assert found.cause == "commit" and direction(found) == ("up" if ratio > 1 else "down")
    assert found.commits == (f"{found.index - 1:040x}", f"{found.index:040x}")


def test_two_steps_and_back() -> None:
    values = [v * (1.04 if 40 <= i < 80 else 1) for i, v in enumerate(noisy(130, 3))]
    assert [(one.index, direction(one)) for one in change_points(nights(values))] == [
        (40, "up"),
        (80, "down"),
    ]


@pytest.mark.parametrize("seed", range(5))
def test_a_young_level_is_located_right(seed: int) -> None:
    values = stepped(100, 96, 1.04, seed=seed, sigma=0.002)
    (found,) = change_points(nights(values))
    assert found.index == 96


def test_false_alarms_without_a_step_are_rare() -> None:
    alarms = 0
    for seed in range(40):
        points = nights(noisy(365, seed))
        stops = [*range(10, 60), *range(60, 366, 15)]
        alarms += any(change_points(points[:stop]) for stop in stops)
    assert alarms <= 1  # of forty years


def test_nights_that_resemble_their_neighbours_are_no_steps() -> None:
    alarms = 0
    for seed in range(20):
        walk = np.random.default_rng(seed).normal(0, 0.004, 365)
        for night in range(1, 365):
            walk[night] += 0.6 * walk[night - 1]
        alarms += bool(change_points(nights(list(1e5 * np.exp(walk)))))
    assert alarms <= 1


def test_a_single_slow_night_is_no_new_level() -> None:
    values = noisy(100, 1)
    values[50] *= 1.17
    values[99] *= 1.17
    assert change_points(nights(values)) == ()


def test_a_step_with_a_new_environment_is_not_blamed_on_a_commit() -> None:
    points = nights(stepped(80, 40, 1.03), lambda night: "old" if night < 40 else "new")
    (found,) = change_points(points)
    assert (found.index, found.cause, direction(found)) == (40, "environment", "up")
    (event,) = environment_changes(points)
    assert (event.index, event.before, event.after) == (40, "old", "new")


def test_a_commit_is_told_apart_from_an_upgrade_weeks_later() -> None:
    points = nights(stepped(120, 40, 1.03), lambda night: "old" if night < 80 else "new")
    (found,) = change_points(points)
    assert (found.index, found.cause) == (40, "commit")


def test_an_upgrade_without_a_step_is_an_event_only() -> None:
    points = nights(noisy(80, 2), lambda night: "old" if night < 40 else "new")
    assert change_points(points) == () and len(environment_changes(points)) == 1


def test_a_short_visit_elsewhere_does_not_hide_a_step() -> None:
    points = nights(stepped(80, 40, 1.03), lambda night: "other" if 38 <= night < 40 else "home")
    (found,) = change_points(points)
    assert (found.index, found.cause) == (40, "commit")
    assert found.commits == (f"{37:040x}", f"{40:040x}")


@pytest.mark.parametrize("values", [[], [5.0], [5.0] * 9, [5.0] * 200, [1.0] * 8 + [9.0]])
def test_short_and_constant_series_have_no_change(values: list[float]) -> None:
    assert change_points(nights(values)) == ()


def test_a_step_between_constants_is_found() -> None:
    (found,) = change_points(nights([1000.0] * 10 + [1100.0] * 10))
    assert found.index == 10 and found.ratio.estimate == pytest.approx(1.1)


def test_what_is_no_number_is_passed_over() -> None:
    values = stepped(80, 40, 1.05, sigma=0.002)
    values[10], values[20], values[60] = math.nan, 0.0, math.inf
    (found,) = change_points(nights(values))
    assert found.index == 40


def test_nights_at_the_same_time_and_missing_ones_are_no_obstacle() -> None:
    points = [point for point in nights(stepped(90, 40, 1.05)) if int(point.run_id[1:]) % 7]
    assert [point.run_id for point in points][change_points(points)[0].index] == "r40"


def test_a_move_below_ignore_is_no_news() -> None:
    points = nights(stepped(300, 150, 1.01, sigma=0.001))
    assert change_points(points, ignore=0.02) == () and len(change_points(points)) == 1


def test_the_noise_does_not_feel_a_step() -> None:
    sigma = noise([np.log(np.array(stepped(365, 100, 2.0)))])
    assert sigma == pytest.approx(0.005, rel=0.15)
    assert noise([np.zeros(1)]) == noise([np.zeros(30)]) == NOISE_FLOOR


def test_devices_are_never_mixed() -> None:
    fast, slow = nights(noisy(40, 0), device="b"), nights(noisy(40, 0, level=5e5), device="a")
    trends = case_trends("m/fp16/b1", [one for pair in zip(fast, slow, strict=True) for one in pair])
    assert [trend.device for trend in trends] == ["a", "b"]
    assert all(trend.changes == () and len(trend.points) == 40 for trend in trends)


def shape(found: tuple[LevelChange, ...]) -> list[tuple[int, str]]:
    return [(one.index, direction(one)) for one in found]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 1000),
    st.integers(20, 120),
    st.sampled_from([1.0, 1.03, 1.2]),
    st.sampled_from([1e-3, 8, 1e6]),
)
def test_the_unit_does_not_matter(seed: int, count: int, ratio: float, scale: float) -> None:
    values = stepped(count, count // 2, ratio, seed=seed)
    scaled = change_points(nights([value * scale for value in values]))
    plain = change_points(nights(values))
    assert shape(scaled) == shape(plain)
    assert [one.ratio.estimate for one in scaled] == pytest.approx(
        [one.ratio.estimate for one in plain], abs=2e-6
    )


@settings(max_examples=80, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from(["a", "b"])), max_size=60
    )
)
def test_it_never_raises_and_its_indexes_are_sorted(series: list[tuple[float, str]]) -> None:
    points = nights([value for value, _ in series], lambda night: series[night][1])
    found = change_points(points)
    indexes = [one.index for one in found]
    assert indexes == sorted(set(indexes)) and all(0 < index < len(points) for index in indexes)
    assert all(
        math.isfinite(number)
        for one in found
        for number in (one.ratio.low, one.ratio.estimate, one.ratio.high)
    )
    assert found == change_points(points)
    if len(points) < 2 * MIN_NIGHTS:
        assert found == ()
