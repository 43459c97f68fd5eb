"""The reports of the stored H200 results, on any machine: no GPU, and nothing is measured.

    python tests/benchmarks/demo.py --out perfgate-out/demo

Makes `results.json` from the baselines in `baselines/nvidia-h200`: what a run on that machine writes where no
model changed. Every number in it is a stored one, every case is UNCHANGED by the gate's own judgement. Beside
it, `report.html` and `report.zh-CN.html`, and `comment.md` as a pull request would show it; and the business
case as `value.html`, `value.zh-CN.html`, Markdown, CSV and JSON (`demo_value.py`).
`make demo` runs this.
"""

from __future__ import annotations

import sys
from pathlib import Path

import common
from demo_value import business_files, stored_case

from perfgate.errors import DataError
from perfgate.gate.baselines import load_baselines
from perfgate.gate.verdict.judge import judge
from perfgate.gate.verdict.summary import summarise
from perfgate.model.cases import expand
from perfgate.model.read import read_specs
from perfgate.records import RESULTS_SCHEMA, CaseResult, Commit, Environment, Mode, RunResult, Unchanged
from perfgate.report import render
from perfgate.run.outputs import RESULTS_NAME
from perfgate.settings import Settings
from perfgate.util.files import record_json, write_text

DEVICE, TOOLCHAIN = "nvidia-h200", "tensorrt-8.5.3.1"


def stored_run(root: Path = common.ROOT) -> RunResult:
    """What a run on the baselines' own machine says where nothing changed."""
    stored = load_baselines(root / "baselines", Environment(device=DEVICE, toolchain=TOOLCHAIN, key={}))
    if not stored.cases:
        raise DataError("holds no baseline", where=root / "baselines" / DEVICE / TOOLCHAIN)
    newest = max(stored.cases.values(), key=lambda one: one.case.promoted)
    settings = Settings(root=str(root))
    protocol = settings.protocol("gpu")
    specs = read_specs([root / "models"])
    cases = [
        case
        for spec in specs
        for case in expand(
            spec,
            backend="tensorrt",
            default_mode=Mode(drive="graph", wait="spin"),
            tolerance=settings.tolerance("gpu"),
            source=f"models/{spec.name}.toml",
        )
        if case.id in stored.cases
    ]
    results = tuple(
        CaseResult(
            case=case,
            outcome=Unchanged(),
            case_digest=stored.cases[case.id].case.case_digest,
            source_digest=stored.cases[case.id].case.source_digest,
            judgement=judge(case, Unchanged(), stored, stored.cases[case.id].environment, protocol),
        )
        for case in cases
    )
    return RunResult(
        schema=RESULTS_SCHEMA,
        run_id=f"stored-{newest.case.promoted[:10]}",
        created=newest.case.promoted,
        perfgate=newest.environment.noted.get("perfgate", "unknown"),
        commit=Commit(sha=newest.case.commit),
        environment=newest.environment,
        protocol=protocol,
        cases=results,
        summary=summarise(results, results=RESULTS_NAME),
    )


def run(options: common.Options) -> int:
    """Write the files, and say where they are."""
    stored = stored_run()
    files = {
        RESULTS_NAME: record_json(stored),
        "report.html": render(stored, "html"),
        "report.zh-CN.html": render(stored, "html", "zh-CN"),
        "comment.md": render(stored, "markdown"),
        **business_files(stored_case()),
    }
    for name, text in files.items():
        write_text(options.out / name, text)
        print(f"wrote {options.out / name}")
    return 0


if __name__ == "__main__":
    out = common.option("--out", type=Path, default=Path("perfgate-out/demo"))
    sys.exit(common.main(run, __doc__.partition("\n")[0], [out]))
