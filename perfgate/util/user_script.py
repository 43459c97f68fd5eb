"""Loading a Python file that is not ours; only ever done in a child process."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from perfgate.errors import CaseError


def load_script(path: Path) -> ModuleType:
    """The module of a Python file, with its folder first on the import path, as if it were run there.

    Raises `CaseError` for a file that is not Python, and whatever the file itself raises.
    """
    sys.dont_write_bytecode = True  # nothing of ours is left beside the user's script
    sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise CaseError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module
