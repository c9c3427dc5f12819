"""Imports point one way: each room sees only rooms below it."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
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
    "publish": 4,
    "craft": 5,
    "victim": 6,
    "evaluation": 7,
    "study": 7,
    "probes": 8,
    "planning": 8,
    "jobs": 8,
    "report": 9,
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


def test_config_imports_nothing_heavy() -> None:
    for path in (PACKAGE / "config").rglob("*.py"):
        assert not {name.partition(".")[0] for _, name in imported(path)} & HEAVY, path.name


def test_the_command_line_starts_without_torch() -> None:
    code = "import sys, hpcule.cli.main; sys.exit('torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
