"""Imports point one way: each room sees only rooms below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from itertools import pairwise
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "hpcule"
LEVELS = {
    "config": 0,
    "world": 1,
    "data": 2,
    "nets": 2,
    "measure": 3,
    "store": 3,
    "tasks": 4,
    "publish": 4,
    "craft": 5,
    "victim": 6,
    "evaluation": 7,
    "study": 7,
    "probes": 8,
    "planning": 8,
    "jobs": 8,
    "report": 9,
    "interface": 10,
    "cli": 10,
}
HEAVY = {"torch", "torchvision", "numpy", "h5py", "scipy", "sklearn", "PIL", "mpi4py"}


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """Line and full name of every import of a module, those inside functions too."""
    package = [PACKAGE.name, *path.relative_to(PACKAGE).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)


def wrong_directions(path: Path) -> list[str]:
    room = path.relative_to(PACKAGE).parts[0]
    found = []
    for line, name in imported(path):
        parts = name.split(".")
        if parts[0] != PACKAGE.name or parts[1] not in LEVELS or parts[1] == room:
            continue
        if LEVELS[parts[1]] >= LEVELS[room]:
            found.append(f"{path.relative_to(PACKAGE)}:{line} imports {name}")
    return found


def circle(package: Path) -> list[str]:
    """Modules of which each imports the next, the first one again at the end; empty if there are none.

    Imports inside functions and under TYPE_CHECKING count.
    """
    paths = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in package.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in paths.items()}
    graph = {
        module: {name if name in modules else name.rpartition(".")[0] for _, name in imported(path)} & set(modules)
        for module, path in modules.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(reversed(error.args[1]))
    return []


def test_every_folder_is_a_room() -> None:
    assert {path.parent.name for path in PACKAGE.glob("*/__init__.py")} == set(LEVELS)


@pytest.mark.parametrize("room", LEVELS)
def test_a_room_imports_only_rooms_below_it(room: str) -> None:
    wrong = [line for path in sorted((PACKAGE / room).rglob("*.py")) for line in wrong_directions(path)]
    assert not wrong, "\n".join(wrong)


def test_every_way_to_import_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", tmp_path / "hpcule")
    path = tmp_path / "hpcule" / "data" / "module.py"
    path.parent.mkdir(parents=True)
    path.write_text(
        "import hpcule.cli.main\n"
        "from hpcule import craft\n"
        "from hpcule.store.write import Writer\n"
        "def inside():\n"
        "    from ..study import report\n"
        "    from . import source\n"
        "    from hpcule.config import errors\n"
        "    from hpcule import __version__\n"
    )
    assert [line.partition(" imports ")[2] for line in sorted(wrong_directions(path))] == [
        "hpcule.cli.main",
        "hpcule.craft",
        "hpcule.store.write.Writer",
        "hpcule.study.report",
    ]


def test_no_imports_go_round_in_a_circle() -> None:
    found = circle(PACKAGE)
    assert not found, " imports ".join(found)


def test_parts_of_methods_import_no_method() -> None:
    paths = sorted((PACKAGE / "craft" / "parts").glob("*.py"))
    wrong = [f"{p.name} imports {name}" for p in paths for _, name in imported(p) if ".craft.methods" in name]
    assert not wrong, "\n".join(wrong)


def test_few_methods_import_another() -> None:
    folder = PACKAGE / "craft" / "methods"
    arrows = {
        (path.stem, name.split(".")[3])
        for path in folder.glob("*.py")
        for _, name in imported(path)
        if name.startswith("hpcule.craft.methods.")
    }
    assert arrows <= {("em_ops", "em"), ("em_ops", "ops"), ("sem", "rem"), ("texture_learned", "texture")}


@pytest.mark.parametrize(
    "back",
    [
        "from hpcule.craft.first import thing\n",
        "from . import first\n",
        "def inside():\n    import hpcule.craft.first\n",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from hpcule.craft.first import thing\n",
    ],
)
def test_a_planted_circle_is_found(back: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "hpcule"
    monkeypatch.setattr(sys.modules[__name__], "PACKAGE", package)
    (package / "craft").mkdir(parents=True)
    for name in ("__init__", "craft/__init__"):
        (package / f"{name}.py").touch()
    (package / "craft" / "first.py").write_text("from hpcule.craft import second\n")
    (package / "craft" / "second.py").write_text("from hpcule.craft.third import other\n")
    (package / "craft" / "third.py").write_text("import os\n")
    assert circle(package) == []
    (package / "craft" / "third.py").write_text(back)
    found = circle(package)
    assert found[0] == found[-1]
    assert set(found) == {f"hpcule.craft.{name}" for name in ("first", "second", "third")}
    following = {"first": "second", "second": "third", "third": "first"}
    ends = [name.rpartition(".")[2] for name in found]
    assert all(following[one] == other for one, other in pairwise(ends))


def test_config_imports_nothing_heavy() -> None:
    for path in (PACKAGE / "config").rglob("*.py"):
        assert not {name.partition(".")[0] for _, name in imported(path)} & HEAVY, path.name


@pytest.mark.parametrize("module", ["hpcule", "hpcule.cli.main"])
def test_nothing_heavy_is_imported_before_it_is_used(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({HEAVY} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
