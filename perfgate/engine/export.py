"""Taking an engine away: the very bytes that were gated, with a sidecar that says what they are.

A deployment that builds again draws another ticket: another build may choose other kernels.
"""

from __future__ import annotations

from os import PathLike
from pathlib import Path
from typing import Final, Literal

from perfgate.engine.plugin_libraries import beside, place
from perfgate.errors import DataError, RefusedError
from perfgate.model.graph import Graph, GraphInput
from perfgate.records import (
    CaseResult,
    Commit,
    Dimension,
    Facts,
    InputData,
    Name,
    Precision,
    Record,
    RunResult,
    Share,
    Text,
    Verdict,
    digest,
)
from perfgate.util.files import (
    TEXT_LIMIT_BYTES,
    file_digest,
    read_record,
    record_json,
    write_bytes,
    write_text,
)

SIDECAR_SCHEMA: Final = "perfgate-trt/engine/v2"


class Sidecar(Record, kw_only=True):
    """`<engine>.json`: what an exported engine is, where it came from, and what the gate said of it.

    `inputs` and `outputs` are the ONNX graph's (TensorRT before 10 takes int64 as int32): an axis is a size,
    or a dimension's name, whose range is in `profile` and whose measured size is in `shape`. `test_data`
    fills the inputs for measuring. In v1 `inputs` was the test data, and there were no outputs.
    """

    schema: Literal["perfgate-trt/engine/v1", "perfgate-trt/engine/v2"]
    case: Name
    engine: Name
    engine_digest: str
    engine_bytes: int
    verdict: Verdict
    precision_asked: Precision
    precision_realised: dict[Name, Share] = {}
    inputs: tuple[GraphInput, ...] | dict[Name, InputData] = ()
    outputs: tuple[Name, ...] = ()
    test_data: dict[Name, InputData] = {}
    shape: dict[Name, int] = {}
    profile: dict[Name, Dimension] = {}
    mode: Text
    versions: Facts
    device: Name
    environment: Facts
    onnx_digest: str
    recipe_digest: str
    case_digest: str
    commit: Commit
    run_id: Name
    created: Name

    @property
    def version(self) -> str:
        """The build in a few characters: the commit, marked where its tree was dirty, or the engine's own
        digest where there was no commit."""
        if not self.commit.sha:
            return f"engine-{self.engine_digest[:12]}"
        return self.commit.sha[:12] + ("+dirty" if self.commit.dirty else "")

    def labels(self) -> dict[str, str]:
        """The identity as flat text: the labels of an info metric, or the fields of a log line."""
        return {
            "version": self.version,
            "case": self.case,
            "verdict": self.verdict.value,
            "precision": self.precision_asked,
            "shape": ",".join(f"{name}={size}" for name, size in sorted(self.shape.items())),
            "device": self.device,
            "engine_digest": self.engine_digest,
        }


class Gated(Record):
    """What was gated: the engine's SHA-256, its share of layers by element type, and its ONNX graph."""

    digest: str
    share: dict[Name, Share]
    graph: Graph


def export_engine(
    engine: Path,
    run: RunResult,
    result: CaseResult,
    out: Path,
    *,
    gated: Gated,
) -> list[Path]:
    """Copy the engine and write its sidecar into `out`; returns both paths.

    Raises `RefusedError` when the engine is not, byte for byte, the one that was gated.
    """
    found = file_digest(engine)
    if found != gated.digest:
        raise RefusedError(
            f"the engine here is {found[:12]}, the one that was gated is {gated.digest[:12]}",
            where=result.case.id,
            fix="perfgate run --remeasure gates the engine that is here; then export it",
        )
    recipe, verdict = result.recipe, result.judgement.verdict if result.judgement else Verdict.ERROR
    assert recipe is not None
    target = out / f"{result.case.id.replace('/', '.')}.engine"
    write_bytes(target, engine.read_bytes())
    place(target, list(zip(recipe.plugins, beside(engine, recipe.plugins), strict=True)))
    sidecar = Sidecar(
        schema=SIDECAR_SCHEMA,
        case=result.case.id,
        engine=target.name,
        engine_digest=found,
        engine_bytes=target.stat().st_size,
        verdict=verdict,
        precision_asked=recipe.precision,
        precision_realised=gated.share,
        inputs=gated.graph.inputs,
        outputs=gated.graph.outputs,
        test_data=result.case.inputs,
        shape=result.case.shape,
        profile=recipe.profile,
        mode=str(result.case.mode),
        versions=recipe.versions,
        device=recipe.device,
        environment=run.environment.key,
        onnx_digest=recipe.onnx_digest,
        recipe_digest=digest(recipe),
        case_digest=result.case_digest,
        commit=run.commit,
        run_id=run.run_id,
        created=run.created,
    )
    described = target.with_name(f"{target.name}.json")
    write_text(described, record_json(sidecar))
    return [target, described]


def metadata(engine: str | PathLike[str]) -> Sidecar:
    """The metadata of an exported engine, from `<engine>.json` beside it.

    Raises `DataError` when a file is missing or damaged, or the sidecar is another engine's.
    """
    path = Path(engine)
    sidecar = read_record(path.with_name(f"{path.name}.json"), Sidecar, limit_bytes=TEXT_LIMIT_BYTES)
    try:
        size = path.stat().st_size
        # The size is compared first: a truncated engine of many GiB need not be read to be refused.
        found = file_digest(path) if size == sidecar.engine_bytes else None
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}", where=path) from error
    if found != sidecar.engine_digest:
        what = f"is {size} bytes" if found is None else f"is {found[:12]}"
        raise DataError(
            f"{what}, but its sidecar describes another engine "
            f"({sidecar.engine_bytes} bytes, {sidecar.engine_digest[:12]})",
            where=path,
            fix="perfgate export writes both files together; deploy both",
        )
    return sidecar
