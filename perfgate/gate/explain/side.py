"""One side of an explanation, and what differs around its engine: machine, recipe, clocks, timing cache."""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Sequence

from perfgate.gate.verdict.clocks import sm_clock_mhz
from perfgate.measure.environment import differences
from perfgate.records import Difference, EngineFacts, Environment, Launch, Recipe, Record, to_builtins

_CACHE = re.compile(r"^timing cache: loaded (\d+) bytes, grew by (-?\d+)")
# Clocks are told as different from one percent on: a sample of NVML's is one of many within a launch.
_CLOCK_STEP = 0.01


class Side(Record, kw_only=True):
    """What is at hand of base or of head. `engine` and `onnx` are paths, empty where the file is not here;
    `launches` are those that the verdict rests on, with their telemetry."""

    engine: str = ""
    onnx: str = ""
    facts: EngineFacts | None = None
    recipe: Recipe | None = None
    environment: Environment | None = None
    launches: tuple[Launch, ...] = ()

    @property
    def gated_ns(self) -> float | None:
        """The geometric mean of launch medians, as the gate compares them."""
        if not self.launches:
            return None
        return math.exp(statistics.fmean(math.log(launch.median_ns) for launch in self.launches))


class Surroundings(Record):
    """All differences, and which of them are key: fields of the environment, of the toolchain."""

    all: tuple[Difference, ...] = ()
    environment: tuple[Difference, ...] = ()
    toolchain: tuple[Difference, ...] = ()


def compare_sides(base: Side, head: Side) -> Surroundings:
    """Every key and noted field, every field of the recipe, clocks, slowdowns and timing caches."""
    key: tuple[Difference, ...] = ()
    noted: tuple[Difference, ...] = ()
    if base.environment and head.environment:
        key = differences(base.environment.key, head.environment.key)
        noted = differences(base.environment.noted, head.environment.noted)
    recipe: tuple[Difference, ...] = ()
    if base.recipe and head.recipe:
        recipe = differences(_flat(base.recipe), _flat(head.recipe))
    toolchain = tuple(
        d
        for d in recipe
        if d.field.startswith(("recipe.versions.", "recipe.options.", "recipe.profile."))
        or d.field
        in ("recipe.backend", "recipe.precision", "recipe.typing", "recipe.device", "recipe.plugins")
    )
    around = (*_prefixed("environment", key), *_prefixed("noted", noted), *recipe)
    return Surroundings(
        all=(*around, *_clocks(base, head), *_timing(base, head))[:1000],
        environment=_prefixed("environment", key),
        toolchain=toolchain,
    )


def _prefixed(prefix: str, found: Sequence[Difference]) -> tuple[Difference, ...]:
    return tuple(Difference(field=f"{prefix}.{d.field}"[:300], base=d.base, head=d.head) for d in found)


def _flat(recipe: Recipe) -> dict[str, str]:
    flat: dict[str, str] = {}
    for name, value in to_builtins(recipe).items():
        if isinstance(value, dict):
            flat |= {f"recipe.{name}.{inner}"[:300]: str(found) for inner, found in value.items()}
        else:
            flat[f"recipe.{name}"] = str(value)
    return flat


def _clocks(base: Side, head: Side) -> list[Difference]:
    """Clocks that are more than a step apart, and what slowed either side down."""
    found = []
    clocks = [[mhz for x in side.launches if (mhz := sm_clock_mhz(x))] for side in (base, head)]
    if all(clocks):
        means = [statistics.fmean(side) for side in clocks]
        if abs(means[1] / means[0] - 1) > _CLOCK_STEP:
            found.append(Difference(field="clocks.sm_mhz", base=f"{means[0]:.0f}", head=f"{means[1]:.0f}"))
    slowdowns = [
        sorted({s for x in side.launches if x.telemetry for s in x.telemetry.slowdowns})
        for side in (base, head)
    ]
    if slowdowns[0] != slowdowns[1]:
        found.append(
            Difference(
                field="clocks.slowdowns",
                base=", ".join(slowdowns[0]) or "none",
                head=", ".join(slowdowns[1]) or "none",
            )
        )
    return found


def _timing(base: Side, head: Side) -> list[Difference]:
    """Timing caches: growth is all that TensorRT 8.5 shows of a miss."""
    said = [_growth(side.facts) for side in (base, head)]
    if said[0] == said[1] or not all(said):
        return []
    return [Difference(field="timing cache", base=said[0], head=said[1])]


def _growth(facts: EngineFacts | None) -> str:
    for note in facts.notes if facts else ():
        if found := _CACHE.match(note):
            loaded, grown = int(found[1]), int(found[2])
            if not loaded:
                return "none was loaded: every tactic was timed anew"
            return "every tactic was in it" if grown <= 0 else f"misses: it grew by {grown} bytes"
    return ""
