"""The package's structure: few files in its root, no import circle, names in the field's terms."""

from __future__ import annotations

import ast
import re
from graphlib import TopologicalSorter
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1] / "perfgate"
PRIVATE_WORDS = re.compile(
    r"(?:^|_)(told|held|anew|said|asked|heard|spoken|court|luck|turn|workshop|workbench)(?:_|$)", re.I
)


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(path): ast.parse(path.read_text()) for path in PACKAGE.rglob("*.py")}


def imports(name: str) -> set[str]:
    """The modules of the package that a module imports, inside functions and for types too."""
    found = set()
    for node in ast.walk(MODULES[name]):
        if isinstance(node, ast.ImportFrom) and node.module:
            full = (f"{node.module}.{alias.name}" for alias in node.names)
            found |= {one if one in MODULES else node.module for one in full}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return (found & MODULES.keys()) - {name}


def room(name: str) -> str:
    return ".".join(name.split(".")[:2])


def test_the_root_holds_at_most_six_files() -> None:
    assert len(list(PACKAGE.glob("*.py"))) <= 6


def test_no_module_imports_itself_in_a_circle() -> None:
    order = list(TopologicalSorter({name: imports(name) for name in MODULES}).static_order())
    assert len(order) == len(MODULES)


def test_rooms_stand_on_at_most_ten_floors() -> None:
    below: dict[str, set[str]] = {}
    for name in MODULES:
        below.setdefault(room(name), set()).update(room(one) for one in imports(name))
    floors: dict[str, int] = {}
    for name in TopologicalSorter({key: value - {key} for key, value in below.items()}).static_order():
        floors[name] = 1 + max((floors[one] for one in below[name] - {name}), default=0)
    assert max(floors.values()) <= 10


def test_names_are_the_fields_own_terms() -> None:
    names = {part for name in MODULES for part in name.split(".")}
    for tree in MODULES.values():
        kinds = (ast.FunctionDef, ast.ClassDef)
        names |= {node.name for node in ast.walk(tree) if isinstance(node, kinds)}
    split = {name: re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name) for name in names}
    assert [name for name, text in split.items() if PRIVATE_WORDS.search(text)] == []
