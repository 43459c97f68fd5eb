"""Settings per case and metric: the most specific rule wins; floors and SLOs name what is judged."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx_files import BATCH, spec_text, write_spec

from perfgate.errors import SpecError
from perfgate.gate.verdict.metrics import METRICS
from perfgate.model.cases import expand
from perfgate.model.read import read_spec
from perfgate.model.spec import JUDGED_METRICS
from perfgate.records import Case, Floor, Mode, Slo, Tolerance

TOLERANCE = Tolerance(ignore=0.005, catch=0.02)
RULES = """
[floors.p99_ns]
relative = 0.1
[[rule]]
cases = "*/b2"
catch = 0.06
floors = { p99_ns = { relative = 0.3 }, engine_bytes = { relative = 0.5, absolute = 1000 } }
[[rule]]
cases = "*"
ignore = 0.01
catch = 0.04
"""


def cases(folder: Path, more: str) -> dict[str, Case]:
    spec = read_spec(write_spec(folder, spec_text(dims=BATCH) + more))
    made = expand(spec, backend="onnxruntime", default_mode=Mode(), tolerance=TOLERANCE)
    return {case.id: case for case in made}


def test_the_most_specific_rule_wins_setting_by_setting(tmp_path: Path) -> None:
    made = cases(tmp_path, RULES)
    assert made["net/fp32/b1"].tolerance == Tolerance(ignore=0.01, catch=0.04)
    assert made["net/fp32/b2"].tolerance == Tolerance(ignore=0.01, catch=0.06)


def test_floors_are_the_models_and_then_the_rules(tmp_path: Path) -> None:
    made = cases(tmp_path, RULES)
    assert made["net/fp32/b1"].floors == {"p99_ns": Floor(relative=0.1)}
    assert made["net/fp32/b2"].floors == {
        "p99_ns": Floor(relative=0.3),
        "engine_bytes": Floor(relative=0.5, absolute=1000),
    }


def test_a_rule_that_turns_ignore_and_catch_over_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not below catch"):
        cases(tmp_path, '[[rule]]\ncases = "*"\nignore = 0.03\n')


def test_a_floor_of_no_metric_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no metric 'p98_ns'") as caught:
        cases(tmp_path, "[floors.p98_ns]\nrelative = 0.1\n")
    assert "p99_ns" in str(caught.value.fix)


def test_the_metrics_of_a_spec_are_those_that_the_gate_judges() -> None:
    assert set(METRICS) == JUDGED_METRICS


def test_a_service_slo_names_its_load(tmp_path: Path) -> None:
    whole = "[slo]\nengine_p99_ms = 2.0\nservice_p99_ms = 9.0\nservice_qps = 400\n"
    made = cases(tmp_path, whole)
    assert made["net/fp32/b1"].slo == Slo(engine_p99_ms=2.0, service_p99_ms=9.0, service_qps=400)
    for half in ("service_p99_ms = 9.0", "service_qps = 400"):
        with pytest.raises(SpecError, match="go together"):
            cases(tmp_path, f"[slo]\n{half}\n")
