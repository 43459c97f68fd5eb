"""The commands that say why: show an explanation, bundle the evidence, find the commit."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich_click as click
from click.exceptions import Exit

from perfgate.errors import PerfgateError, UsageError

if TYPE_CHECKING:
    from perfgate.gate.explain.bundle import Model
    from perfgate.records import CaseResult, Explanation, RunResult
    from perfgate.run.bisect.drive import Bisection
    from perfgate.settings import Settings

_SHOWN = 20


@click.command()
@click.argument("results", type=click.Path(path_type=Path))
@click.argument("case")
def explain(results: Path, case: str) -> None:
    """Show why CASE is slower, as the run that wrote RESULTS found out. Measures nothing."""
    from perfgate.run.outputs import read_results

    found = _case_of(read_results(results), case, str(results))
    if found.explanation is None:
        verdict = found.judgement.verdict.value if found.judgement else "not judged"
        click.echo(f"{case}: {verdict}; a run explains what it confirms as a REGRESSION, and nothing else")
        return
    click.echo(explanation_text(case, found.explanation))


@click.command()
@click.argument("case")
@click.option("--results", type=click.Path(path_type=Path), help="[default: perfgate-out/results.json]")
@click.option("--out", "target", type=click.Path(path_type=Path), help="The zip to write.")
@click.option("--include-weights", is_flag=True, help="Put the ONNX files in, weights and all.")
def bundle(case: str, results: Path | None, target: Path | None, include_weights: bool) -> None:
    """Write a zip with all that is known of CASE, which runs elsewhere: ready for an issue.

    Exact trtexec commands of both sides, digests and generators of the models, recipes, samples, layers and
    telemetry. Paths, host names, tokens and environment variables are not in it; look before you share it.
    """
    from perfgate.gate.explain.bundle import Bundle
    from perfgate.run.outputs import RESULTS_NAME, read_results
    from perfgate.settings import load_settings
    from perfgate.util.files import write_bytes
    from perfgate.util.redact import Scrubber

    settings = load_settings({}, start=Path.cwd())
    path = results or settings.path("out") / RESULTS_NAME
    run = read_results(path)
    found = _case_of(run, case, str(path))
    target = target or settings.path("out") / f"bundle-{case.replace('/', '-')}.zip"
    with contextlib.ExitStack() as stack:
        models = _models(settings, run, found, stack)
        scrub = Scrubber([Path(settings.root), Path.cwd(), settings.path("store")])
        data = Bundle(run, found, models, scrub).zipped(include_weights=include_weights)
    write_bytes(target, data)
    click.echo(f"wrote {target}: {len(data)} bytes; look at it before you share it")


@click.command()
@click.argument("good")
@click.argument("bad")
@click.option("--case", "case_id", required=True, help="The case that became slower.")
@click.option("--models", help="Folder of model specs.  [default: models]")
@click.option("--backend", help="auto, tensorrt, onnxruntime, …  [default: auto]")
@click.option("--device", help="auto, cpu, or a GPU's index or UUID.  [default: auto]")
def bisect(good: str, bad: str, case_id: str, **flags: Any) -> None:
    """Find the first commit after GOOD, up to BAD, that makes a case slower.

    It drives `git bisect run` in a temporary worktree; your checkout is not touched. Both ends are confirmed
    first, and the commit that is found is confirmed against its parent last: exit code 0. Exit code 1: it is
    not confirmed, or commits that cannot be tested hide it.
    """
    from perfgate.engine import get_backend
    from perfgate.measure.turn import DeviceLock
    from perfgate.run.bisect.drive import bisect as find
    from perfgate.settings import load_settings
    from perfgate.util.progress import make_progress

    settings = load_settings(flags, start=Path.cwd())
    backend = get_backend(settings.backend, settings.device)
    with make_progress() as progress, DeviceLock(backend, settings, progress.say)():
        found = find(settings, good, bad, case_id, progress.say)
    click.echo(bisection_text(found))
    if not found.sure:
        raise Exit(1)


def explanation_text(case: str, found: Explanation) -> str:
    """The explanation for a terminal."""
    lines = [f"{case}: {found.cause}", f"  kind               {found.kind}"]
    rows = (
        ("gated", found.gated_base_ns, found.gated_head_ns),
        ("profiled", found.profiled_base_ns, found.profiled_head_ns),
    )
    lines += [
        f"  {name:<18} {base / 1e6:.4f} → {head / 1e6:.4f} ms" for name, base, head in rows if base and head
    ]
    if found.state_ratio is not None:
        lines.append(f"  state of the loads {found.state_ratio:.4f} (head by base; removed from the layers)")
    elif found.profiled_head_ns is not None:
        lines.append("  state of the loads not removed: too little is known to be unchanged to tell it")
    if found.unexplained_ns is not None:
        lines.append(f"  unexplained        {found.unexplained_ns / 1e6:.4f} ms")
    for change in found.layers[:_SHOWN]:
        names = " + ".join(change.head_layers or change.base_layers)[:80]
        share = "" if change.share is None else f"  {change.share:.0%} of the slowdown"
        lines.append(f"  {change.kind:<10} {names}{share}  {change.detail[:120]}")
    lines += [f"  graph      {change.what[:200]}" for change in found.graph[:_SHOWN]]
    lines += [f"  differs    {d.field}: {d.base[:80]} → {d.head[:80]}" for d in found.differences[:_SHOWN]]
    hidden = sum(max(0, len(rows) - _SHOWN) for rows in (found.layers, found.graph, found.differences))
    lines += [f"  ({hidden} more in the results file)"] if hidden else []
    lines += [f"  not seen   {text[:200]}" for text in found.unseen]
    return "\n".join(_printable(line) for line in lines)


def bisection_text(found: Bisection) -> str:
    """The bisection for a terminal: what was tested, and what came out."""
    lines = []
    for step in found.steps:
        ratio = f"{step.ratio.estimate:.3f} × as long" if step.ratio else "-"
        verdict = step.verdict.value if step.verdict else "skipped"
        subject = step.commit.subject[:50]
        lines.append(f"  {step.commit.sha[:12]}  {verdict:<12}  {ratio:<18}  {subject}  {step.note}")
    if found.first is None:
        names = ", ".join(commit.sha[:12] for commit in found.candidates)
        lines.append(f"one of these is the first slower commit; the others could not be tested: {names}")
    else:
        state = "confirmed against its parent" if found.sure else "NOT confirmed against its parent"
        if found.confirmed is not None and found.confirmed.ratio:
            state += f", {found.confirmed.ratio.estimate:.3f} × as long"
        lines.append(f"{found.first.sha} is the first slower commit: {found.first.subject[:100]}")
        lines.append(f"  {state}")
    return "\n".join(_printable(line) for line in lines)


def _printable(text: str) -> str:
    # Names come from models and commits: no control character reaches a terminal.
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _case_of(run: RunResult, case: str, where: str) -> CaseResult:
    found = next((one for one in run.cases if one.case.id == case), None)
    if found is None:
        ids = ", ".join(one.case.id for one in run.cases)[:1000]
        raise UsageError(f"no case is named {case!r}", where=where, fix=f"one of: {ids}")
    return found


def _models(
    settings: Settings, run: RunResult, case: CaseResult, stack: contextlib.ExitStack
) -> dict[str, Model]:
    """Both sides' models where their sources are here: head's in the tree or at its commit, base's at its
    own. Worktrees stay until `stack` is closed."""
    from perfgate.gate.explain.bundle import base_commit
    from perfgate.util.git import worktree

    root, models = Path(settings.root), {}
    for side, sha in (("head", run.commit.sha), ("base", base_commit(run, case))):
        wanted = case.source_digest if side == "head" else ""
        places = [root] if side == "head" else []
        try:
            found = None
            for place in places:
                found = _model_at(settings, place, case, wanted)
            if found is None and sha:
                found = _model_at(settings, stack.enter_context(worktree(root, sha)), case, wanted)
        except PerfgateError as error:
            click.echo(f"{side}'s model is not in the bundle: {error.what}", err=True)
            continue
        if found is None:
            click.echo(f"{side}'s model is not in the bundle: its source is not here", err=True)
        else:
            models[side] = found
    return models


def _model_at(settings: Settings, place: Path, case: CaseResult, wanted: str) -> Model | None:
    """The model that a place's files make; None where they are not the source that was measured."""
    from perfgate.gate.explain.bundle import Model
    from perfgate.model.onnx_file import export_onnx
    from perfgate.model.read import read_spec

    path = place / case.case.source
    if not case.case.source or not path.is_file():
        return None
    spec = read_spec(path)
    made = export_onnx(spec, settings.path("store").resolve() / "models")
    if wanted and made.source_digest != wanted:
        return None
    return Model.of(spec, Path(made.path), made.graph)
