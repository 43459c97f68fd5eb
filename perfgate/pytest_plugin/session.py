"""One registered plugin object a pytest run: it collects, measures once, lets items report, and writes.

Under pytest-xdist every worker holds the whole selection. The first to reach the measuring step takes a
file lock and measures for all; the others wait, then read what it wrote.
"""

from __future__ import annotations

import contextlib
import shutil
import uuid
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import pytest
from filelock import FileLock

from perfgate.errors import DataError, PerfgateError, SpecError, UsageError
from perfgate.gate.policy.active import ActivePolicy
from perfgate.gate.verdict.summary import summarise
from perfgate.model.read import read_spec
from perfgate.model.spec import ModelSpec
from perfgate.model.validate.messages import raise_all
from perfgate.pytest_plugin.items import COLLECT_CODE, EXIT_CODE, CaseItem, SpecFile, failure_text
from perfgate.pytest_plugin.python_cases import (
    benchmark_case_id,
    benchmark_nodes,
    run_benchmarks,
    run_function,
)
from perfgate.records import CaseResult, RunResult, Verdict
from perfgate.run.outputs import write_outputs
from perfgate.run.pipeline import Pipeline
from perfgate.run.shards import Shard, join, plan_shards
from perfgate.settings import load_settings
from perfgate.util.files import (
    RESULTS_LIMIT_BYTES,
    check_writable,
    read_record,
    record_json,
    store_folder,
    write_text,
)
from perfgate.util.progress import BarProgress, PlainProgress

_SCHEMA_MARK = b"perfgate-trt/model/"
_ENVIRONMENT = 3
_OUT_FIX = "choose a writable folder with --perfgate-out"


class GateSession:
    """Holds the pipeline and the results of one pytest run."""

    def __init__(self, config: pytest.Config, flags: dict[str, Any]) -> None:
        self._config = config
        self.settings = load_settings(flags, start=config.rootpath)
        self._authority = ActivePolicy(self.settings, flags)
        self.settings = self._authority.settings
        self._specs: dict[str, ModelSpec] = {}
        self._results: dict[str, CaseResult] = {}
        self._own: dict[str, CaseResult] = {}
        self._run: RunResult | None = None
        self._trouble: PerfgateError | None = None
        self._codes: list[int] = []
        self._collect_codes: list[int] = []
        self._status = 0
        worker = getattr(config, "workerinput", None)
        self._is_worker = worker is not None
        shared = worker["perfgate_shared"] if worker else None
        self._shared = Path(shared) if shared else self.settings.path("store") / "runs" / uuid.uuid4().hex
        models = self.settings.path("models").resolve()
        if worker:
            self._whole = bool(worker["perfgate_whole"])
        elif config.args_source is pytest.Config.ArgsSource.ARGS:
            asked = [(config.invocation_params.dir / arg).resolve() for arg in config.args]
            self._whole = any(models.is_relative_to(path) for path in asked)
        else:
            self._whole = True
            config.args += [str(models)] if models.is_dir() else []

    @cached_property
    def pipeline(self) -> Pipeline:
        return Pipeline(self.settings, self._progress(), self._authority)

    def _progress(self) -> PlainProgress:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        if self._is_worker or reporter is None:
            return PlainProgress(lambda _: None)
        from rich.console import Console

        console = Console(file=self._config.get_terminal_writer()._file)
        if console.is_terminal:
            return BarProgress(console)
        return PlainProgress(lambda text: reporter.write_line(f"perfgate: {text}"))

    # Collection

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> SpecFile | None:
        models = self.settings.path("models").resolve()
        if file_path.suffix != ".toml" or not (
            file_path.parent == models or _SCHEMA_MARK in file_path.read_bytes()[:4096]
        ):
            return None
        file: SpecFile = SpecFile.from_parent(parent, path=file_path)
        file.gate = self
        return file

    def _is_spec(self, path: Path) -> bool:
        return (
            path.parent == self.settings.path("models").resolve() or _SCHEMA_MARK in path.read_bytes()[:4096]
        )

    def read_spec(self, path: Path) -> ModelSpec | None:
        """None for a spec that cannot be read: it becomes an item that fails, and the others are measured."""
        try:
            spec = read_spec(path)
            other = self._specs.setdefault(spec.name, spec)
            if other.path != spec.path:
                raise SpecError(
                    f"two models are named {spec.name!r}: the other is {other.path}",
                    where=f"{path}: name",
                    fix="give each model a name of its own; baselines are filed by it",
                )
        except (SpecError, DataError) as error:
            self.pipeline.broken[path.stem] = error
            return None
        return spec

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, session: pytest.Session, items: list[pytest.Item]) -> None:
        """Baseline cases that no spec in scope makes any more become items that fail as MISSING."""
        broken = "pipeline" in vars(self) and self.pipeline.broken
        stored = self._whole and self.settings.path("baselines").is_dir()
        if self._collect_codes or not (self._specs or broken or stored):
            return
        try:
            if not self._specs:
                raise_all(self.pipeline.broken.values() if broken else ())
            cases = [case for spec in self._specs.values() for case in self.pipeline.cases(spec)]
            ghosts = self.pipeline.missing(cases, models=None if self._whole else self._specs)
        except PerfgateError as error:
            self._fail_run(error)
            return
        items += [CaseItem.make(session, self, one.case.id, case=one.case, ghost=one) for one in ghosts]

    @pytest.hookimpl(wrapper=True)
    def pytest_make_collect_report(self, collector: pytest.Collector) -> Iterator[pytest.CollectReport]:
        report: pytest.CollectReport = yield  # type: ignore[misc,assignment]
        if report.failed:
            # In the report's own dictionary, xdist carries it from a worker.
            vars(report)[EXIT_CODE] = collector.stash.get(COLLECT_CODE, 1)
        return report  # type: ignore[return-value]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._collect_codes.append(vars(report).get(EXIT_CODE, 1))

    # Measuring

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> Iterator[None]:
        lenient = self._is_worker or session.config.option.continue_on_collection_errors
        stopped = session.testsfailed and not lenient
        if session.items and not stopped and not session.config.option.collectonly:
            self._measure(session.items)
        return (yield)

    def _measure(self, items: list[pytest.Item]) -> None:
        cases = [item for item in items if isinstance(item, CaseItem)]
        nodes = benchmark_nodes(self._config, items)
        if self._trouble is not None or not (cases or nodes):
            return
        try:
            store_folder(self._shared)
            check_writable(self.settings.path("out"), fix=_OUT_FIX)
            parts = []
            for shard in plan_shards(self.settings, self.pipeline.backend.kind, **self._place()):
                saved = self._shared / f"results-{shard.number}.json"
                with FileLock(self._shared / f"lock-{shard.number}"):
                    if self._failed_elsewhere():
                        return
                    if not saved.is_file():
                        mine = nodes if shard.number == 0 else []
                        write_text(saved, record_json(self._measure_now(shard, shard.of(cases), mine)))
                    parts.append(read_record(saved, RunResult, limit_bytes=RESULTS_LIMIT_BYTES))
            ids = [item.case.id for item in cases]
            self._run = join(sorted(parts, key=lambda part: part.run_id), ids)
            write_text(self._shared / "results.json", record_json(self._run))
        except PerfgateError as error:
            self._fail_run(error)
            return
        self._results = {result.case.id: result for result in self._run.cases}
        if "pipeline" in vars(self) and self.pipeline.interrupted:
            raise KeyboardInterrupt

    def _fail_run(self, error: PerfgateError) -> None:
        """Nothing can be measured: the other workers and the controller are told by a file."""
        self._trouble = error
        text = {"what": error.what, "where": error.where, "fix": error.fix, "code": error.exit_code}
        with contextlib.suppress(PerfgateError):
            store_folder(self._shared)
            write_text(self._shared / "trouble.json", msgspec.json.encode(text).decode())

    def _failed_elsewhere(self) -> bool:
        trouble = self._shared / "trouble.json"
        if trouble.is_file():
            self._trouble = _retell(msgspec.json.decode(trouble.read_bytes()))
        return self._trouble is not None

    def _place(self) -> dict[str, int]:
        """How many xdist workers there are, and which of them this is."""
        worker = getattr(self._config, "workerinput", {})
        number = str(worker.get("workerid", "gw0")).removeprefix("gw")
        return {"workers": int(worker.get("workercount", 1)), "mine": int(number) if number.isdigit() else 0}

    def _measure_now(self, shard: Shard, items: list[CaseItem], nodes: list[str]) -> RunResult:
        selected = [(item.spec, item.case) for item in items if item.spec is not None]
        ghosts = [item.ghost for item in items if item.ghost is not None]
        pipeline = self.pipeline
        if shard.count > 1:
            pipeline = self.pipeline = Pipeline(
                self.settings, self._progress(), self._authority.on_device(shard.device)
            )
        with pipeline.progress:
            result = pipeline.run(selected, missing=ghosts)
            if nodes and not pipeline.interrupted:
                try:
                    timed = run_benchmarks(pipeline, nodes, root=self._config.rootpath)
                except KeyboardInterrupt:
                    timed, pipeline.interrupted = [], True
                result = pipeline.judged(msgspec.structs.replace(result, cases=(*result.cases, *timed)))
        return result

    def gate_function(self, item: pytest.Item, function: str) -> CaseResult:
        """Measure a function of a test file in fresh processes and judge it; used by the fixture."""
        try:
            with self.pipeline.progress:
                result = run_function(self.pipeline, item.path, item.name, function)
            if result.case.id in self._own:
                raise UsageError(
                    "is measured already, by this test or by one of the same name",
                    where=result.case.id,
                    fix="one function a test, and test files of different names",
                )
            self._own[result.case.id] = result
            if self._is_worker:
                write_text(
                    self._shared / f"own-{uuid.uuid4().hex}.json",
                    record_json(self._with_cases((result,))),
                )
        except PerfgateError as error:
            _fail(item, error.exit_code, f"perfgate: {error}")
        self._hold(item, result)
        return result

    def _hold(self, item: pytest.Item, result: CaseResult) -> None:
        """Fail a test of Python code whose case is red."""
        assert result.judgement is not None
        if code := self.exit_code_of(result.judgement.verdict):
            _fail(item, code, failure_text(result))

    # Reporting

    def result_of(self, case_id: str) -> CaseResult:
        if self._trouble is not None:
            raise self._trouble
        return self._results[case_id]

    def exit_code_of(self, verdict: Verdict) -> int:
        return 1 if verdict is Verdict.NEW and self.settings.require_baseline else verdict.exit_code

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        yield
        timed = benchmark_nodes(self._config, [item])
        if timed and self._trouble is not None:
            _fail(item, self._trouble.exit_code, f"perfgate: {self._trouble}")
        if timed and (result := self._results.get(benchmark_case_id(item.nodeid))):
            self._hold(item, result)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Iterator[pytest.TestReport]:
        report: pytest.TestReport = yield  # type: ignore[misc,assignment]
        if isinstance(item, CaseItem) and call.when == "call":
            trouble = call.excinfo.value if call.excinfo else None
            if isinstance(trouble, PerfgateError):
                report.user_properties.append((EXIT_CODE, trouble.exit_code))
            else:
                report.duration = item.measured_s()
        return report  # type: ignore[return-value]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self._codes.append(int(str(dict(report.user_properties).get(EXIT_CODE, 1))))

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        node.workerinput["perfgate_shared"] = str(self._shared.resolve())
        node.workerinput["perfgate_whole"] = self._whole

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self._is_worker or session.config.option.collectonly:
            return
        try:
            self._run = self._gather()
            if self._run is None:
                self._failed_elsewhere()
            if self._run is not None:
                write_outputs(self._run, self.settings.path("out"), self.settings.language)
        except PerfgateError as error:
            self._trouble = error
        shutil.rmtree(self._shared, ignore_errors=True)
        session.exitstatus = self._status = self._exit_status(session.exitstatus)

    def _exit_status(self, status: int) -> int:
        """pytest's own status, unless all that went wrong is ours and says more: 1 goes over 2 and 3."""
        judged = self._run.summary.exit_code if self._run and self._run.summary else 0
        codes = {*self._codes, *self._collect_codes, judged} - {0}
        codes |= {self._trouble.exit_code} if self._trouble is not None else set()
        failed = (pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED)
        ours = status in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED) or (
            status in failed and bool(self._codes or self._collect_codes) and 1 not in codes
        )
        return min(codes) if codes and ours else status

    def _gather(self) -> RunResult | None:
        """The run with the cases of fixtures, joined from all workers; None where nothing was collected."""
        saved = self._shared / "results.json"
        if self._run is None and saved.is_file():
            self._run = read_record(saved, RunResult, limit_bytes=RESULTS_LIMIT_BYTES)
        for path in sorted(self._shared.glob("own-*.json")):
            for case in read_record(path, RunResult, limit_bytes=RESULTS_LIMIT_BYTES).cases:
                self._own.setdefault(case.case.id, case)
        if self._run is None and not self._own:
            return None
        return self._with_cases((*(self._run.cases if self._run else ()), *self._own.values()))

    def _with_cases(self, cases: tuple[CaseResult, ...]) -> RunResult:
        run = self._run or self.pipeline.result_of(())
        summary = summarise(
            cases,
            results=f"{self.settings.out}/results.json",
            require_baseline=self.settings.require_baseline,
            dirty=run.commit.dirty,
        )
        return msgspec.structs.replace(run, cases=cases, summary=summary)

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        terminalreporter.section("perfgate")
        if self._trouble is not None:
            terminalreporter.write_line(f"perfgate: {self._trouble}")
            return
        if self._run is None:
            terminalreporter.write_line("nothing was measured: no case was selected, so nothing was compared")
            return
        from perfgate.report import render

        terminalreporter.write_line(render(self._run, "terminal", self.settings.language))
        out = self.settings.path("out")
        terminalreporter.write_line(f"wrote {out / 'results.json'} and {out / 'report.html'}")
        if self._status == _ENVIRONMENT and set(self._codes) == {_ENVIRONMENT}:
            terminalreporter.write_line(
                f"perfgate: only the environment failed, no case did: exit status {self._status}"
            )


def _fail(item: pytest.Item, code: int, text: str) -> NoReturn:
    item.user_properties.append((EXIT_CODE, code))
    pytest.fail(text, pytrace=False)


def _retell(text: dict[str, Any]) -> PerfgateError:
    """An error that a sibling worker met, told again."""
    error = PerfgateError(text["what"], where=text["where"], fix=text["fix"])
    error.exit_code = text["code"]
    return error
