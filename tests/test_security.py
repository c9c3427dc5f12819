"""SECURITY.md lists everything that is deserialised; the code is searched for whatever is not on its list."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
READERS = {
    *("np.load", "np.fromfile", "np.genfromtxt", "np.loadtxt", "np.memmap", "np.frombuffer"),
    *("np.lib.format.read_array", "np.lib.format.read_array_header_1_0", "np.lib.format.read_array_header_2_0"),
    *("torch.load", "torch.export.load", "torch.jit.load", "torch.hub.load", "torch.package.PackageImporter"),
    *("pickle.load", "pickle.loads", "pickle.Unpickler", "marshal.load", "marshal.loads", "shelve.open", "joblib.load"),
    *("yaml.load", "yaml.safe_load", "yaml.full_load", "yaml.unsafe_load", "json.load", "json.loads"),
    *("h5py.File", "zipfile.ZipFile", "tarfile.open", "Image.open", "wave.open", "_soundfile().SoundFile", "dcmread"),
    *("nibabel.load", "importlib.import_module", "import_module", "entry_points", "eval", "exec", "ast.literal_eval"),
    *("submitit.SlurmExecutor", "ElementTree.parse", "ElementTree.fromstring", "csv.reader", "tomllib.load"),
}
"""Calls that turn bytes from outside the process into objects, or names into code."""
METHODS = {"from_pretrained", "create_model", "get_state_dict", "get_model"}
"""The same, whatever they are called on."""
WRITES = {(name, mode) for name in ("zipfile.ZipFile", "h5py.File", "tarfile.open") for mode in ("w", "x")}


def called(path: Path) -> Iterator[str]:
    """Every reader that a module calls, or derives from."""
    for node in ast.walk(ast.parse(path.read_text())):
        found = [node.func] if isinstance(node, ast.Call) else node.bases if isinstance(node, ast.ClassDef) else []
        if isinstance(node, ast.IfExp):  # a choice of readers
            found = [node.body, node.orelse]
        for function in found:
            name = ast.unparse(function)
            last = name.rpartition(".")[2]
            given = [*node.args, *(word.value for word in node.keywords)] if isinstance(node, ast.Call) else []
            if any((name, argument.value) in WRITES for argument in given if isinstance(argument, ast.Constant)):
                continue
            if name in READERS:
                yield name
            elif isinstance(function, ast.Attribute) and last in METHODS:
                yield last


def in_code() -> set[tuple[str, str]]:
    modules = sorted((ROOT / "hpcule").rglob("*.py"))
    return {(name, str(path.relative_to(ROOT / "hpcule"))) for path in modules for name in called(path)}


def in_list() -> set[tuple[str, str]]:
    """Readers and modules of the table: `reader` in its first column, `module.py` in the second."""
    section = (ROOT / "SECURITY.md").read_text().partition("## What is deserialised")[2].partition("\n## ")[0]
    found = set()
    for line in section.splitlines():
        cells = line.split("|")
        if len(cells) == 6 and "`" in cells[1]:
            readers, modules = (re.findall(r"`([^`]+)`", cell) for cell in cells[1:3])
            found |= {(reader, module) for reader in readers for module in modules}
    return found


def test_what_the_code_deserialises_is_on_the_list():
    assert in_code() - in_list() == set()


def test_what_is_on_the_list_is_in_the_code():
    assert in_list() - in_code() == set()


@pytest.mark.parametrize(
    ("code", "readers"),
    [
        ("import torch\ntorch.load('x')", ["torch.load"]),
        ("class Reader(pickle.Unpickler): ...", ["pickle.Unpickler"]),
        ("net = diffusers.UNet2DModel.from_pretrained(path)", ["from_pretrained"]),
        ("with zipfile.ZipFile(path, 'w') as file: ...", []),
        ("with zipfile.ZipFile(path) as file: ...", ["zipfile.ZipFile"]),
        ("network.eval()", []),
    ],
)
def test_the_search_finds_readers(code, readers, tmp_path):
    path = tmp_path / "module.py"
    path.write_text(code)
    assert list(called(path)) == readers


def test_pickles_are_read_by_restricted_readers_alone():
    """`weights_only` and `allow_pickle` are written out, since their defaults differ between releases."""
    for path in (ROOT / "hpcule").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            name = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            wanted = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}.get(name)
            if wanted:
                given = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg == wanted[0]}
                assert given == dict([wanted]), f"{path}:{node.lineno}"
