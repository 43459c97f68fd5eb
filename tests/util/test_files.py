from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perfgate.errors import (
    CaseError,
    DataError,
    InfrastructureError,
    OutputError,
    PerfgateError,
    RefusedError,
    SpecError,
    UsageError,
)
from perfgate.records import Mode, Protocol, Tolerance
from perfgate.util.files import (
    check_writable,
    file_digest,
    read_bytes,
    record_json,
    store_lock,
    write_bytes,
    write_error,
    write_text,
)
from perfgate.util.process import package_environment


def test_what_is_written_is_what_is_read_and_folders_are_made(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.txt"
    write_text(path, "täglich\n")
    assert path.read_bytes() == "täglich\n".encode()
    assert path.stat().st_mode & 0o777 == 0o644
    write_bytes(path, b"")
    assert path.read_bytes() == b""
    assert list(path.parent.iterdir()) == [path]


def test_a_reader_beside_a_writer_never_sees_half_a_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    whole = {bytes([number]) * 200_000 for number in range(4)}
    write_bytes(path, next(iter(whole)))
    done = threading.Event()

    def rewrite() -> None:
        for _ in range(10):
            for data in whole:
                write_bytes(path, data)
        done.set()

    writer = threading.Thread(target=rewrite)
    writer.start()
    while not done.is_set():
        assert path.read_bytes() in whole
    writer.join()


LIMITED = """
import resource, signal, sys
from pathlib import Path
from perfgate.errors import PerfgateError
from perfgate.util.files import write_bytes
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    write_bytes(Path(sys.argv[1]), b"new" * 1000)
except PerfgateError as error:
    print(type(error).__name__)
"""


def test_a_write_that_fails_halfway_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_text("old")
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, path], capture_output=True, text=True, env=package_environment()
    )
    assert done.stdout.strip() == "OutputError", done.stderr
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"a small file system cannot be mounted: {mounted.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_infrastructure_and_leaves_the_old_file(small_disk: Path) -> None:
    path = small_disk / "results.json"
    write_text(path, "old")
    with pytest.raises(InfrastructureError, match="no space left") as caught:
        write_bytes(path, bytes(1 << 20))
    assert caught.value.exit_code == 3
    assert str(path) in str(caught.value)
    assert path.read_text() == "old"
    assert list(small_disk.iterdir()) == [path]


def test_a_disk_that_is_full_on_flushing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "results.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InfrastructureError, match="no space left"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_while_writing_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(descriptor: int) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "results.json"
    path.write_text("old")
    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("name", ["file/results.json", "file/deeper/results.json", "folder", "n" * 300])
def test_a_place_that_cannot_be_written_is_an_output_error_that_names_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="cannot be written") as caught:
        write_text(tmp_path / name, "text")
    assert str(tmp_path / name) in str(caught.value)
    assert "fix: choose a place that can be written to" in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, InfrastructureError),
        (errno.EDQUOT, InfrastructureError),
        (errno.EACCES, OutputError),
        (errno.EROFS, OutputError),
    ],
)
def test_the_kind_of_a_write_error(number: int, kind: type[PerfgateError]) -> None:
    assert type(write_error(Path("x"), OSError(number, os.strerror(number)))) is kind


def test_the_remedy_of_a_write_error_fits_what_was_written(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")
    folder = tmp_path / "taken/inner"
    with pytest.raises(OutputError, match="--out"):
        check_writable(folder)
    with pytest.raises(OutputError, match="choose a place") as caught:
        write_text(folder / "report.html", "")
    assert "--out" not in str(caught.value)
    with pytest.raises(OutputError, match="with the setting store: PERFGATE_STORE"), store_lock(folder):
        pass


def test_a_folder_of_the_store_that_cannot_be_locked_is_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(lock: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr("filelock.FileLock.acquire", refuse)
    with pytest.raises(OutputError, match="with the setting store: PERFGATE_STORE"), store_lock(tmp_path):
        pass


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (PerfgateError, 2),
        (UsageError, 2),
        (SpecError, 2),
        (DataError, 2),
        (RefusedError, 2),
        (OutputError, 2),
        (InfrastructureError, 3),
        (CaseError, 1),
    ],
)
def test_every_kind_of_error_has_its_exit_code(kind: type[PerfgateError], code: int) -> None:
    assert kind("what").exit_code == code


def test_an_error_reads_where_what_and_how_to_fix_it() -> None:
    assert (
        str(SpecError("is wrong", where=Path("a.toml"), fix="mend it")) == "a.toml: is wrong\n  fix: mend it"
    )
    assert str(SpecError("is wrong")) == "is wrong"


@pytest.mark.parametrize("size", [0, 9, 10])
def test_a_file_up_to_the_limit_is_read(tmp_path: Path, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert read_bytes(path, limit_bytes=10) == b"x" * size


def test_a_file_over_the_limit_or_without_end_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * 11)
    for over in (path, Path("/dev/zero")):
        with pytest.raises(DataError, match="larger than"):
            read_bytes(over, limit_bytes=10)


def test_the_digest_of_a_file_is_that_of_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_json_is_sorted_reviewable_and_the_same_every_time() -> None:
    text = record_json({"b": [1, 2.5], "a": {"z": [], "y": [{"k": None}]}, "schema": "s/v1"})
    assert text.splitlines() == [
        "{",
        '  "schema": "s/v1",',
        '  "a": {',
        '    "y": [',
        "      {",
        '        "k": null',
        "      }",
        "    ],",
        '    "z": []',
        "  },",
        '  "b": [1, 2.5]',
        "}",
    ]
    assert json.loads(text)["b"] == [1, 2.5]


def test_defaults_are_left_out_of_json() -> None:
    assert record_json(Mode()) == "{}\n"
    assert record_json(Protocol(launches=3)) == '{\n  "launches": 3\n}\n'


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_json_cannot_say_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        record_json(Tolerance(ignore=value, catch=1))


def test_a_temporary_file_is_never_left_where_a_glob_for_results_finds_it(tmp_path: Path) -> None:
    with contextlib.suppress(PerfgateError):
        write_text(tmp_path / "x.json", "x")
    assert [path.name for path in tmp_path.glob("*.json")] == ["x.json"]
