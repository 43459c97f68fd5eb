"""The digest of a file's content, and where it is kept."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper
from onnx_files import model, with_external_data, write, write_spec

from perfgate.errors import SpecError
from perfgate.model import content, graph
from perfgate.model.content import clean_blob, content_digest
from perfgate.model.external_data import external_files
from perfgate.model.graph import read_graph
from perfgate.model.graph_digest import graph_digest
from perfgate.model.onnx_file import export_onnx
from perfgate.model.read import read_spec
from perfgate.model.sources import Sources
from perfgate.util.files import file_digest

OID = "ab" * 32
POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize 12345\n"


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(content, "KEPT_FROM_BYTES", 8)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files whose content was hashed."""
    names: list[str] = []

    def counted(path: Path) -> str:
        names.append(path.name)
        return file_digest(path)

    monkeypatch.setattr(content, "file_digest", counted)
    return names


def age(path: Path, seconds: int = 60) -> Path:
    about = path.stat()
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns - seconds * 10**9))
    return path


def file(path: Path, data: bytes = b"0123456789") -> Path:
    path.write_bytes(data)
    return age(path)


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-C", folder, *words], check=True, capture_output=True)


def repository(folder: Path, **files: bytes) -> Path:
    folder.mkdir()
    git(folder, "init", "-q")
    for name, value in (("user.name", "a"), ("user.email", "a@b"), ("core.autocrlf", "false")):
        git(folder, "config", name, value)
    for name, data in files.items():
        file(folder / name, data)
    git(folder, "add", ".")
    git(folder, "commit", "-qm", "x")
    return folder


def test_a_large_file_is_hashed_once(tmp_path: Path, hashed: list[str]) -> None:
    path = file(tmp_path / "a")
    digests = {content_digest(path, tmp_path / "kept") for _ in range(3)}
    assert digests == {hashlib.sha256(b"0123456789").hexdigest()}
    assert hashed == ["a"]


def test_a_small_file_is_not_kept(tmp_path: Path, hashed: list[str]) -> None:
    path = file(tmp_path / "a", b"0123")
    for _ in range(2):
        content_digest(path, tmp_path / "kept")
    assert hashed == ["a", "a"]
    assert not (tmp_path / "kept").exists()


def test_a_file_that_was_written_just_now_is_not_kept(tmp_path: Path, hashed: list[str]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"0123456789")
    for _ in range(2):
        content_digest(path, tmp_path / "kept")
    assert hashed == ["a", "a"]


def test_a_file_that_changes_while_it_is_hashed_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = file(tmp_path / "a")

    def slow(path: Path) -> str:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
        file(path, b"9876543210")
        return found

    monkeypatch.setattr(content, "file_digest", slow)
    content_digest(path, tmp_path / "kept")
    assert not (tmp_path / "kept").exists()


def test_a_file_that_was_written_again_has_another_digest(tmp_path: Path) -> None:
    path = file(tmp_path / "a")
    before, one = path.stat(), content_digest(path, tmp_path / "kept")
    path.write_bytes(b"9876543210")
    # Size, inode and modification time are what they were; the change time is not.
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert content_digest(path, tmp_path / "kept") != one


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"key": "other", "digests": ["' + b"a" * 64 + b'"]}'])
def test_what_is_kept_and_damaged_is_made_again(tmp_path: Path, damage: bytes) -> None:
    path = file(tmp_path / "a")
    before = content_digest(path, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    kept.write_bytes(damage)
    assert content_digest(path, tmp_path / "kept") == before


def test_a_committed_file_is_hashed_once_for_all_checkouts(tmp_path: Path, hashed: list[str]) -> None:
    one = repository(tmp_path / "one", weights=b"0123456789")
    git(tmp_path, "clone", "-q", str(one), "two")
    age(tmp_path / "two" / "weights")
    git(tmp_path / "two", "update-index", "--refresh")
    digests = {content_digest(tmp_path / name / "weights", tmp_path / "kept") for name in ("one", "two")}
    assert len(digests) == 1
    assert hashed == ["weights"]


def blob(data: bytes) -> str:
    return hashlib.sha1(b"blob %d\0%s" % (len(data), data)).hexdigest()


def test_git_knows_a_clean_file_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = repository(tmp_path / "one", **{"a b*é": b"x" * 20}) / "a b*é"
    assert clean_blob(path) == blob(b"x" * 20)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "nowhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(tmp_path / "nowhere"))
    assert clean_blob(path) == blob(b"x" * 20)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert clean_blob(path) is None


@pytest.mark.parametrize(
    "attribute", ["filter=lfs", "text", "text=auto", "eol=crlf", "ident", "working-tree-encoding=UTF-16"]
)
def test_git_does_not_speak_for_a_filtered_file(tmp_path: Path, attribute: str) -> None:
    folder = repository(tmp_path / "one", a=b"x" * 20)
    assert clean_blob(folder / "a")
    (folder / ".gitattributes").write_text(f"a {attribute}\n")
    assert clean_blob(folder / "a") is None


def test_git_does_not_speak_for_a_file_whose_line_ends_it_converts(tmp_path: Path) -> None:
    folder = repository(tmp_path / "one", a=b"x" * 20)
    git(folder, "config", "core.autocrlf", "input")
    assert clean_blob(folder / "a") is None
    (folder / ".gitattributes").write_text("a binary\n")
    assert clean_blob(folder / "a") == blob(b"x" * 20)


@pytest.mark.parametrize("mark", ["", "--assume-unchanged", "--skip-worktree"])
def test_git_does_not_speak_for_a_changed_file(tmp_path: Path, mark: str) -> None:
    folder = repository(tmp_path / "one", a=b"x" * 20)
    if mark:
        git(folder, "update-index", mark, "a")
    (folder / "a").write_bytes(b"y" * 20)
    assert clean_blob(folder / "a") is None


def test_git_does_not_speak_for_an_untracked_file(tmp_path: Path) -> None:
    folder = repository(tmp_path / "one", a=b"x" * 20)
    assert clean_blob(file(folder / "b")) is None
    assert clean_blob(file(tmp_path / "c")) is None


def test_a_git_lfs_pointer_counts_as_what_it_stands_for(tmp_path: Path) -> None:
    assert content_digest(file(tmp_path / "a", POINTER.encode())) == OID
    data = POINTER.encode() + b"more\n"
    assert content_digest(file(tmp_path / "b", data)) == hashlib.sha256(data).hexdigest()


def test_a_folder_has_no_content(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="is not a regular file"):
        content_digest(tmp_path)


def test_an_onnx_file_that_is_a_git_lfs_pointer_is_refused(tmp_path: Path) -> None:
    folder = repository(tmp_path / "one", a=b"x") / "my models"
    folder.mkdir()
    with pytest.raises(SpecError, match="is a Git LFS pointer") as caught:
        read_graph(file(folder / "net.onnx", POINTER.encode()))
    assert caught.value.where == str(folder / "net.onnx")
    assert caught.value.fix == "git lfs pull --include='my models/net.onnx'"


def test_external_data_that_is_a_git_lfs_pointer_is_refused(tmp_path: Path) -> None:
    file(tmp_path / "weights", POINTER.encode())
    path = write(tmp_path / "net.onnx", with_external_data("weights"))
    with pytest.raises(SpecError, match="weights: is a Git LFS pointer") as caught:
        read_graph(path)
    assert caught.value.fix == "git lfs pull --include=weights"


@pytest.fixture
def digested(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The models whose graph digest was computed."""
    models: list[Any] = []

    def counted(model: Any, folder: Path) -> str:
        models.append(model)
        return graph_digest(model, folder)

    monkeypatch.setattr(graph, "graph_digest", counted)
    return models


def test_a_second_reading_hashes_no_weights(tmp_path: Path, hashed: list[str], digested: list[Any]) -> None:
    file(tmp_path / "weights", b"1" * 16)
    path = age(write(tmp_path / "net.onnx", with_external_data("weights")))
    first = read_graph(path, tmp_path / "kept")
    assert sorted(hashed) == ["net.onnx", "weights"]
    assert read_graph(path, tmp_path / "kept") == first == read_graph(path)
    assert sorted(hashed) == ["net.onnx", "weights"]
    assert len(digested) == 2
    assert first.file_digest == hashlib.sha256(path.read_bytes() + b"1" * 16).hexdigest()
    file(tmp_path / "weights", b"2" * 16)
    third = read_graph(path, tmp_path / "kept")
    assert third == read_graph(path)
    assert third.onnx_digest != first.onnx_digest


def test_a_model_that_was_written_while_it_was_read_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The graph that was loaded must not be kept under the content that was there afterwards."""
    path = age(write(tmp_path / "net.onnx"))

    def late(folder: Path, loaded: Any) -> list[Path]:
        age(write(path, model(weights=[numpy_helper.from_array(np.zeros(2, np.float32), "w")])), 30)
        return external_files(folder, loaded)

    monkeypatch.setattr(graph, "external_files", late)
    read_graph(path, tmp_path / "kept")
    monkeypatch.setattr(graph, "external_files", external_files)
    assert read_graph(path, tmp_path / "kept") == read_graph(path)


def test_the_digests_of_a_model_that_is_a_file_are_kept_in_the_store(
    tmp_path: Path, hashed: list[str], digested: list[Any]
) -> None:
    spec = read_spec(write_spec(tmp_path))
    age(tmp_path / "net.onnx")
    made = [export_onnx(spec, Sources(tmp_path / "store")).graph for _ in range(2)]
    assert made[0] == made[1]
    assert hashed == ["net.onnx"]
    assert len(digested) == 1
