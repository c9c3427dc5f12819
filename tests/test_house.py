"""The limits that the package holds, measured by bench/house.py; and that the measurements see what they should."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
HELD = ["any", "circles", "dicts", "full", "headless", "homonyms", "long", "up", "words"]
"""Figures that have a limit."""


@pytest.fixture(scope="module")
def house() -> ModuleType:
    spec = importlib.util.spec_from_file_location("house", ROOT / "bench" / "house.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["house"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def figures(house: ModuleType) -> dict:
    return {figure.key: figure for figure in house.measure(ROOT)}


@pytest.mark.parametrize("key", HELD)
def test_the_package_stays_within_its_limits(figures: dict, key: str) -> None:
    figure = figures[key]
    assert figure.held, "\n".join([f"{figure.what}: {figure.value}, at most {figure.limit}", *figure.places])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("As set.", True),
        ("Nothing.", True),
        ("The pattern.", True),
        ("Of the probe.", True),
        ("None where the clean control did not learn.", True),
        ("So many times all samples instead.", True),
        ("Those of this rank's shards.", True),
        ("`of` a sample, say.", True),
        ("Check ranges.", False),
        ("See `Source.read`.", False),
        ("Number of passes over all samples.", False),
        ("What a victim learnt, by role.", False),
        ("Whether the grid is signed.", False),
        ("Ofen and other words that only begin like one.", False),
        ("Of several lines.\n\nThey are left to the reader.", False),
    ],
)
def test_docstrings_without_a_subject(house: ModuleType, text: str, expected: bool) -> None:
    assert house.is_headless(text) is expected


def package(root: Path, files: dict[str, str]) -> Path:
    (root / "README.md").write_text("three words here\n")
    for name, text in files.items():
        path = root / "hpcule" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        (path.parent / "__init__.py").touch()
        path.write_text(text)
    return root


def test_every_figure_counts_what_it_says(house: ModuleType, tmp_path: Path) -> None:
    files = {
        "data/a.py": "if TYPE_CHECKING:\n    from hpcule.data import b\nLIMIT = 1\n",
        "data/b.py": "def read(x):\n    from .c import Third\n    a, b = 1, 2\n    return Third\nLIMIT = 2\n",
        "data/c.py": "import hpcule.data.a\nfrom hpcule.cli import craft\n"
        "class Third:\n    'As set.'\n    x: int\n    'Of it.'\n",
        "cli/craft.py": "def run(x: Any, *, y: dict[str, Any]) -> None: ...\ndef add_to(): ...\ndef show(): ...\n",
        "cli/data.py": "def run(*x: Any, **y: 'Any') -> Mapping[str, Any]: ...\ndef read(): ...\n" + "\n" * 400,
    }
    root = package(tmp_path, files)
    (root / "tests").mkdir()
    (root / "tests" / "test_imports.py").write_text("LEVELS = {'data': 0, 'cli': 1}\n")
    found = {figure.key: figure for figure in house.measure(root)}
    assert found["circles"].places == ["hpcule.data.a <-> hpcule.data.b <-> hpcule.data.c"]
    assert found["up"].places == ["hpcule/data/c.py imports hpcule.cli.craft"]
    assert found["homonyms"].places == ["read: hpcule.cli.data, hpcule.data.b"]
    assert found["constants"].places == ["LIMIT: hpcule.data.a, hpcule.data.b"]
    assert found["basenames"].value == 0
    assert found["dicts"].value == 2
    assert [place.split()[1] for place in found["any"].places] == ["run(x)", "run(x)", "run(y)"]
    assert [place.split(" ", 1)[1] for place in found["headless"].places] == ["As set.", "Of it."]
    assert found["long"].places == ["hpcule/cli/data.py: 402"]
    assert found["once"].places == ["hpcule/cli/craft.py", "hpcule/data/a.py", "hpcule/data/b.py", "hpcule/data/c.py"]
    assert found["folders"].places == ["data: 3", "cli: 2"]
    assert found["packed"].value == round(1000 / found["lines"].value, 1)
    assert found["words"].value == 3


def test_it_prints_a_table_places_and_json(tmp_path: Path) -> None:
    root = package(tmp_path, {"data/a.py": "def f():\n    'As set.'\n"})
    command = [sys.executable, str(ROOT / "bench" / "house.py"), "--root", str(root)]
    table = subprocess.run([*command, "--list", "headless"], capture_output=True, text=True, check=True).stdout
    assert "hpcule/data/a.py:2 As set." in table
    assert any(line.startswith("headless") and line.endswith("over") for line in table.splitlines())
    written = json.loads(subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout)
    assert {figure["key"]: figure["value"] for figure in written}["headless"] == 1
