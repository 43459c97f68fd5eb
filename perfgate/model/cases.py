"""A spec expands to its cases: precision x measured shape x mode, each with a stable id."""

from __future__ import annotations

import fnmatch
import itertools
from collections.abc import Iterator

from perfgate.errors import SpecError
from perfgate.model.inputs import input_digest
from perfgate.model.spec import CaseRule, ModelSpec, parse_mode
from perfgate.records import Case, Dimension, Floor, Mode, Precision, RebuildPolicy, Tolerance


def expand(
    spec: ModelSpec, *, backend: str, default_mode: Mode, tolerance: Tolerance, source: str = ""
) -> list[Case]:
    """All cases of a spec, in the order of the file.

    Ids read `resnet50/fp16/b8`, `bert-base/fp32/b1-s128`; where the spec lists modes, the mode comes last.
    `tolerance` is the default for what the spec leaves open; `source` is how results name the spec.
    """
    inputs = {name: input_digest(spec.folder, data) for name, data in spec.inputs.items()}
    return [
        Case(
            id="/".join([spec.name, *parts]),
            model=spec.name,
            backend=backend,
            precision=precision,
            shape=shape,
            mode=mode,
            inputs=inputs,
            tolerance=_tolerance(spec, "/".join(parts), tolerance),
            floors=_floors(spec, "/".join(parts)),
            slo=spec.slo,
            accuracy=spec.accuracy.limits(),
            draws=RebuildPolicy(builds=spec.builds, pick=spec.pick),
            source=source,
        )
        for precision, shape, mode, parts in _combinations(spec, default_mode)
    ]


def _rules(spec: ModelSpec, tail: str) -> list[CaseRule]:
    """The rules that fit a case, the most specific last."""
    fitting = [rule for rule in spec.rule if fnmatch.fnmatchcase(tail, rule.cases)]
    return sorted(fitting, key=lambda rule: sum(letter not in "*?[]" for letter in rule.cases))


def _tolerance(spec: ModelSpec, tail: str, default: Tolerance) -> Tolerance:
    """The case's own: its rules' over the model's over the settings'."""
    ignore, catch, given = default.ignore, default.catch, "catch"
    layers: list[ModelSpec | CaseRule] = [spec, *_rules(spec, tail)]
    for layer in layers:
        ignore, catch = layer.ignore or ignore, layer.catch or catch
        given = "ignore" if layer.ignore else given
    if ignore >= catch:
        other = "catch" if given == "ignore" else "ignore"
        raise SpecError(
            f"ignore ({ignore:g}) is not below catch ({catch:g})",
            where=f"{spec.path}: {given}",
            fix=f"set {other} as well: what is to be ignored must be smaller than what is to be caught",
        )
    return Tolerance(ignore=ignore, catch=catch)


def _floors(spec: ModelSpec, tail: str) -> dict[str, Floor]:
    floors = dict(spec.floors)
    for rule in _rules(spec, tail):
        floors |= rule.floors
    return floors


def _combinations(
    spec: ModelSpec, default: Mode
) -> Iterator[tuple[Precision, dict[str, int], Mode, list[str]]]:
    modes = [(text, parse_mode(text, where=spec.path)) for text in spec.modes] or [("", default)]
    values = [[(name, value) for value in dim.measure] for name, dim in spec.dims.items()]
    for precision, chosen, (label, mode) in itertools.product(
        spec.precisions, itertools.product(*values), modes
    ):
        shape = "-".join(f"{name}{value}" for name, value in chosen)
        yield precision, dict(chosen), mode, [part for part in (precision, shape, label) if part]


def skip_reason(spec: ModelSpec, case: Case, *, device_kind: str) -> str | None:
    """The reason of the first rule of the spec that lists this case as not run here, or None.

    `device_kind` is `cpu` or `gpu`; a rule's pattern is matched on the id without the model's name.
    """
    tail = case.id.split("/", 1)[1]
    for rule in spec.skip:
        if (
            fnmatch.fnmatchcase(case.backend, rule.backend)
            and fnmatch.fnmatchcase(device_kind, rule.device)
            and fnmatch.fnmatchcase(tail, rule.cases)
        ):
            return rule.reason
    return None


def profile(spec: ModelSpec) -> dict[str, Dimension]:
    """The optimisation profile of the spec's named dimensions."""
    return {name: Dimension(min=dim.min, opt=dim.opt, max=dim.max) for name, dim in spec.dims.items()}


def missing_case(case_id: str, backend: str) -> Case:
    """A stand-in for a case that only a baseline still knows."""
    return Case(
        id=case_id,
        model=case_id.split("/")[0],
        backend=backend,
        precision="fp32",
        tolerance=Tolerance(ignore=0.1, catch=0.3),
    )
