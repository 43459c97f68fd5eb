from __future__ import annotations

import os
import time
from pathlib import Path

import msgspec
import pytest
from onnx_files import BATCH, model, spec_text, write

from perfgate.errors import CaseError, OutputError, SpecError
from perfgate.model.onnx_file import export_onnx, known_manifest
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.model.spec import ModelSpec
from perfgate.records import Manifest, digest

# What every script here begins with: it makes the file without importing onnx, which takes a second.
COPY = """
import os, shutil, sys, tempfile
from pathlib import Path
HERE = Path(__file__).parent
def copy(path):
    shutil.copy(HERE / "made.onnx", path)
"""


def spec(folder: Path, body: str = "", source: str = "seed = 7", helper: str | None = None) -> ModelSpec:
    """A spec whose script has this `write_onnx` body; it may `note(text)` into the model's folder."""
    folder.mkdir(exist_ok=True)
    write(folder / "made.onnx")
    if helper is not None:
        (folder / "helper.py").write_text(helper)
    lines = [f"    {line}" for line in (body or "copy(path)").splitlines()]
    note = (
        f"def note(text):\n    with open({str(folder / 'notes')!r}, 'a') as sink: sink.write(text + '\\n')\n"
    )
    imports = "import helper\n" if helper is not None else ""
    (folder / "net.py").write_text(
        "\n".join([COPY, imports, note, "def write_onnx(path, seed, **args):", *lines, ""])
    )
    path = folder / "net.toml"
    path.write_text(spec_text(f'script = "net.py"\n{source}', BATCH))
    return read_spec(path)


def notes(folder: Path) -> list[str]:
    path = folder / "notes"
    return path.read_text().splitlines() if path.exists() else []


def test_the_file_that_a_script_writes_comes_back_and_nothing_else(tmp_path: Path) -> None:
    body = "copy(path)\nPath('beside').write_text('x')\nPath(path).with_name('twin.onnx').write_text('x')"
    made = export_onnx(spec(tmp_path / "models", body), Sources(tmp_path / "store"))
    assert Path(made.path).read_bytes() == model().SerializeToString(deterministic=True)
    stored = {path.name for path in (tmp_path / "store").rglob("*") if path.is_file()}
    assert {name for name in stored if len(name) < 32} == {
        "model.onnx",
        "graph.json",
        "export.json",
        "files.json",
        "lock",
    }
    assert {path.name for path in (tmp_path / "models").iterdir()} <= {
        "made.onnx",
        "net.py",
        "net.toml",
    }


def test_an_unchanged_script_is_not_run_again(tmp_path: Path) -> None:
    one = spec(tmp_path / "models", "note('ran')\ncopy(path)")
    first = export_onnx(one, Sources(tmp_path / "store"))
    again = export_onnx(read_spec(Path(one.path)), Sources(tmp_path / "store"))
    assert again == msgspec.structs.replace(first, cached=True) and first.export_ns > 0
    assert notes(tmp_path / "models") == ["ran"]


def test_a_result_that_lacks_a_file_is_made_again(tmp_path: Path) -> None:
    one = spec(tmp_path / "models", "copy(path)")
    first = export_onnx(one, Sources(tmp_path / "store"))
    Path(first.path).with_name("export.json").unlink()
    again = export_onnx(one, Sources(tmp_path / "store"))
    assert (again.export_ns > 0, again.cached, again.graph) == (True, False, first.graph)


def manifest(spec: ModelSpec, store: Path) -> Manifest:
    found = export_onnx(spec, Sources(store)).manifest
    assert found is not None and found.closed, found
    return found


def test_what_a_baseline_knows_is_not_run_again(tmp_path: Path) -> None:
    one = spec(tmp_path / "models", "note('ran')\ncopy(path)")
    known = manifest(one, tmp_path / "store")
    found = known_manifest(one, Sources(tmp_path / "empty", [known]))
    assert found == known and found.made == export_onnx(one, Sources(tmp_path / "store")).graph.onnx_digest
    assert notes(tmp_path / "models") == ["ran"]
    assert known_manifest(one, Sources(tmp_path / "empty", [known], again=True)) is None


def test_a_fresh_checkout_elsewhere_has_the_same_manifest(tmp_path: Path) -> None:
    plain = f"import helper\n{COPY}\ndef write_onnx(path, seed): copy(path)\n"
    digests = set()
    for name in ("a", "b"):
        one = spec(tmp_path / name, helper="x = 1")
        (tmp_path / name / "net.py").write_text(plain)
        digests.add(digest(manifest(one, tmp_path / name / ".perfgate")))
    assert len(digests) == 1


@pytest.mark.parametrize("damage", ["cut", "changed", "facts", "facts removed"])
def test_a_damaged_file_in_the_store_is_made_again(tmp_path: Path, damage: str) -> None:
    one = spec(tmp_path / "models", "note('ran')\ncopy(path)")
    made = export_onnx(one, Sources(tmp_path / "store"))
    path = Path(made.path)
    data = path.read_bytes()
    if damage == "cut":
        path.write_bytes(data[:-4])
    elif damage == "changed":
        path.write_bytes(b"x" + data[1:])
    elif damage == "facts":
        path.with_name("files.json").write_text("{")
    else:
        path.with_name("files.json").unlink()
    again = export_onnx(one, Sources(tmp_path / "store"))
    assert not again.cached and again.export_ns > 0
    assert msgspec.structs.replace(again, export_ns=made.export_ns) == made
    assert path.read_bytes() == data
    assert notes(tmp_path / "models") == ["ran", "ran"]


def test_the_manifest_follows_script_seed_arguments_and_local_imports(tmp_path: Path) -> None:
    variants = {
        "plain": spec(tmp_path / "plain", helper="x = 1"),
        "seed": spec(tmp_path / "seed", source="seed = 8", helper="x = 1"),
        "args": spec(tmp_path / "args", source="seed = 7\nargs = {repeat = 2}", helper="x = 1"),
        "other args": spec(tmp_path / "args2", source="seed = 7\nargs = {repeat = 3}", helper="x = 1"),
        "helper": spec(tmp_path / "helper", helper="x = 2"),
        "body": spec(tmp_path / "body", "copy(path)\npass", helper="x = 1"),
    }
    digests = {digest(manifest(one, tmp_path / "store")) for one in variants.values()}
    assert len(digests) == len(variants)


@pytest.mark.parametrize(
    ("imports", "changed"),
    [
        ("import helper", "helper.py"),
        ("from helper import x", "helper.py"),
        ("import parts.layers", "parts/layers.py"),
        ("from parts import layers", "parts/layers.py"),
        ("from parts.layers import x", "parts/layers.py"),
        ("import helper", "second.py"),
        ("import importlib; importlib.import_module('helper')", "helper.py"),
    ],
)
def test_the_manifest_follows_a_local_file_however_it_is_imported(
    tmp_path: Path, imports: str, changed: str
) -> None:
    folder = tmp_path / "models"
    one = spec(folder, helper="import second")
    (folder / "parts").mkdir()
    for name in ("second.py", "parts/__init__.py", "parts/layers.py"):
        (folder / name).write_text("x = 1")
    (folder / "helper.py").write_text("import second\nx = 1")
    (folder / "net.py").write_text(f"{COPY}\ndef write_onnx(path, seed):\n    {imports}\n    copy(path)\n")
    before = [manifest(one, tmp_path / "store")]
    assert known_manifest(one, Sources(tmp_path / "store", before))
    (folder / changed).write_text("x = 2")
    assert known_manifest(one, Sources(tmp_path / "store", before)) is None


def test_the_manifest_ignores_files_that_are_not_imported_and_how_long_a_script_may_take(
    tmp_path: Path,
) -> None:
    one = spec(tmp_path / "models", helper="x = 1")
    before = [manifest(one, tmp_path / "store")]
    (tmp_path / "models" / "unrelated.py").write_text("x = 1")
    patient = spec(tmp_path / "models", source="seed = 7\ntimeout_s = 9\nlimit_mib = 9", helper="x = 1")
    assert known_manifest(patient, Sources(tmp_path / "store", before))


def test_a_cycle_of_imports_ends(tmp_path: Path) -> None:
    assert manifest(spec(tmp_path / "models", helper="import net, helper"), tmp_path / "store")


def test_no_secret_of_ours_is_visible_to_the_script(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "ACTIONS_RUNTIME_TOKEN", "PERFGATE_X"):
        monkeypatch.setenv(name, "hunter2")
    body = "note(repr(dict(os.environ)))\ncopy(path)"
    export_onnx(spec(tmp_path / "models", body), Sources(tmp_path / "store"))
    assert "hunter2" not in "".join(notes(tmp_path / "models"))
    assert "PATH" in "".join(notes(tmp_path / "models"))


def test_the_script_works_in_a_temporary_folder_that_is_gone_afterwards(tmp_path: Path) -> None:
    body = "note(os.getcwd())\nnote(tempfile.gettempdir())\nnote(os.environ['HOME'])\ncopy(path)"
    export_onnx(spec(tmp_path / "models", body), Sources(tmp_path / "store"))
    seen = set(notes(tmp_path / "models"))
    assert len(seen) == 1
    assert not Path(seen.pop()).exists()


def test_seed_and_arguments_reach_the_script(tmp_path: Path) -> None:
    body = "note(repr((seed, sorted(args.items()))))\ncopy(path)"
    export_onnx(
        spec(tmp_path / "models", body, "seed = 7\nargs = {depth = 3, wide = true}"),
        Sources(tmp_path / "store"),
    )
    assert notes(tmp_path / "models") == ["(7, [('depth', 3), ('wide', True)])"]


FAILURES = {
    "raises": ("raise ValueError('no such layer')", "exit code 1", "no such layer"),
    "exits": ("sys.exit(5)", "exit code 5", ""),
    "crashes": ("os.kill(os.getpid(), 11)", "SIGSEGV", ""),
    "writes nothing": ("pass", "wrote no ONNX file", ""),
    "writes a link": ("os.symlink(HERE / 'made.onnx', path)", "wrote no ONNX file", ""),
    "writes a folder": ("os.mkdir(path)", "wrote no ONNX file", ""),
}


@pytest.mark.parametrize("how", FAILURES)
def test_a_script_that_fails_is_the_cases_fault_and_leaves_nothing(tmp_path: Path, how: str) -> None:
    body, words, tail = FAILURES[how]
    with pytest.raises(CaseError, match=words) as caught:
        export_onnx(spec(tmp_path / "models", body), Sources(tmp_path / "store"))
    assert tail in caught.value.stderr_tail
    assert {path.name for path in (tmp_path / "store").rglob("*") if path.is_file()} == {"lock"}


def test_a_script_that_writes_garbage_is_told_and_run_again_next_time(tmp_path: Path) -> None:
    one = spec(tmp_path / "models", "note('ran')\nPath(path).write_text('garbage')")
    for _ in range(2):
        with pytest.raises(SpecError, match="does not parse as ONNX"):
            export_onnx(one, Sources(tmp_path / "store"))
    assert notes(tmp_path / "models") == ["ran", "ran"]


def test_a_script_without_the_function_says_which_one_is_missing(tmp_path: Path) -> None:
    one = spec(tmp_path / "models")
    (tmp_path / "models" / "net.py").write_text("x = 1\n")
    with pytest.raises(CaseError) as caught:
        export_onnx(one, Sources(tmp_path / "store"))
    assert "write_onnx(path, seed)" in caught.value.stderr_tail


def test_a_script_that_is_not_python_is_told_before_it_is_run(tmp_path: Path) -> None:
    one = spec(tmp_path / "models")
    (tmp_path / "models" / "net.py").write_text("def write_onnx(:\n")
    with pytest.raises(SpecError, match=r"net\.py: is not valid Python"):
        export_onnx(one, Sources(tmp_path / "store"))


def test_a_script_that_writes_too_much_is_stopped_by_the_limit(tmp_path: Path) -> None:
    body = "with open(path, 'wb') as sink:\n    for _ in range(4): sink.write(bytes(1 << 19))"
    with pytest.raises(CaseError):
        export_onnx(spec(tmp_path / "models", body, "limit_mib = 1"), Sources(tmp_path / "store"))


def test_a_script_that_hangs_is_stopped_by_its_time_limit(tmp_path: Path) -> None:
    body = "import threading\nthreading.Event().wait()"
    started = time.monotonic()
    with pytest.raises(CaseError, match="did not end within"):
        export_onnx(spec(tmp_path / "models", body, "timeout_s = 1"), Sources(tmp_path / "store"))
    assert time.monotonic() - started < 30


def test_a_store_that_cannot_be_made_is_an_output_error(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    with pytest.raises(OutputError):
        export_onnx(spec(tmp_path / "models"), Sources(tmp_path / "store"))


def test_a_model_that_is_a_file_is_read_where_it_lies(tmp_path: Path) -> None:
    write(tmp_path / "net.onnx")
    path = tmp_path / "net.toml"
    path.write_text(spec_text(dims=BATCH))
    made = export_onnx(read_spec(path), Sources(tmp_path / "store"))
    assert made.path == os.path.realpath(tmp_path / "net.onnx")
    assert made.manifest is None
    assert not (tmp_path / "store").exists()
