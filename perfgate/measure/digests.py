"""The case digest: two cases of one digest in one environment need no measuring again."""

from __future__ import annotations

from perfgate.measure.environment import mattering_variables
from perfgate.records import Case, InputData, Mode, Protocol, Recipe, Record, digest


class _Usage(Record):
    inputs: dict[str, InputData]
    shape: dict[str, int]
    mode: Mode
    protocol: Protocol
    variables: dict[str, str]


class _Identity(Record):
    model: str
    usage: str


def case_digest(case: Case, recipe: Recipe, protocol: Protocol) -> str:
    """SHA-256 over the recipe (without its timing cache) and how its engine is used."""
    return digest(_Identity(model=recipe.model_digest(), usage=usage_digest(case, protocol)))


def usage_digest(case: Case, protocol: Protocol) -> str:
    """SHA-256 over inputs, shape, mode, protocol and variables: two engines of equal bytes, used alike, are
    one measurement.

    The number of launches and their timeout are left out: they change how well a case is known, not what
    is measured. So are tolerances and SLOs, which are judged anew on stored numbers.
    """
    still = Protocol(
        warmup_ns=protocol.warmup_ns,
        duration_ns=protocol.duration_ns,
        min_samples=protocol.min_samples,
        max_samples=protocol.max_samples,
    )
    return digest(
        _Usage(
            inputs=case.inputs,
            shape=case.shape,
            mode=case.mode,
            protocol=still,
            variables=mattering_variables(),
        )
    )
