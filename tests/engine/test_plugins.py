"""Plugin libraries travel beside their engine: built, cached, exported, loaded by what is in them."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import pytest

from perfgate.engine import plugin_libraries as plugins
from perfgate.engine.tensorrt.api import load_plugins
from perfgate.engine.tensorrt.onnx_names import network_name, plugins_in
from perfgate.errors import CaseError
from perfgate.util.files import file_digest


@pytest.fixture
def library() -> Path:
    """A real shared library of this machine."""
    import _ctypes

    return Path(_ctypes.__file__)


def api(refuses: bool | None) -> Any:
    """TensorRT's registry: of 8.5, which has no way to load a library, or of later ones."""
    registry = types.SimpleNamespace()
    if refuses is not None:
        registry.load_library = lambda path: None if refuses else path
    trt = types.SimpleNamespace(
        init_libnvinfer_plugins=lambda *_: True, get_plugin_registry=lambda: registry, __version__="x"
    )
    return types.SimpleNamespace(trt=trt)


def test_a_library_is_placed_found_by_the_engines_own_word_and_loaded(tmp_path: Path, library: Path) -> None:
    engine, digest = tmp_path / "a" / "engine", file_digest(library)
    plugins.place(engine, [(digest, str(library))])
    engine.write_bytes(b"plan" + network_name({"x": ("b", 3)}, (digest,)).encode())
    needed = plugins.beside(engine, plugins_in(engine.read_bytes()))
    assert needed == (str(engine.parent / "plugins" / f"{digest}.so"),)
    for refuses in (None, False):
        load_plugins(api(refuses), needed, logger=types.SimpleNamespace(kept=[]))


def test_they_move_with_the_engine_and_replace_what_was_there(tmp_path: Path, library: Path) -> None:
    old, new, digest = tmp_path / "old" / "engine", tmp_path / "new" / "engine", file_digest(library)
    plugins.place(new, [(digest, str(library))])
    (new.parent / "plugins" / "stale.so").write_bytes(b"")
    plugins.place(old, [(digest, str(library))])
    plugins.move(old, new)
    assert [path.name for path in (new.parent / "plugins").iterdir()] == [f"{digest}.so"]
    assert not (old.parent / "plugins").exists()
    plugins.move(old, new)  # an engine without any leaves none behind
    assert not (new.parent / "plugins").exists()


def test_a_library_that_is_missing_or_another_is_the_cases_error(tmp_path: Path, library: Path) -> None:
    engine, digest = tmp_path / "engine", file_digest(library)
    with pytest.raises(CaseError, match="not beside the engine") as caught:
        plugins.beside(engine, [digest])
    assert str(tmp_path / "plugins") in str(caught.value.fix)
    plugins.place(engine, [(digest, str(library))])
    (tmp_path / "plugins" / f"{digest}.so").write_bytes(b"another")
    with pytest.raises(CaseError, match="not beside the engine"):
        plugins.beside(engine, [digest])
    with pytest.raises(CaseError, match="changed while it was used"):
        plugins.place(engine, [("0" * 64, str(library))])
