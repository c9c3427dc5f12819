"""Programs that torch.export.save has written, opened only where nothing in the file can run code at opening.

A program is code: it computes whatever its author wrote, from operators of torch. torch.export.load goes further. It
unpickles members of the archive, loads compiled libraries in it, and evaluates text of its graph as Python. Here each
member is checked first, and what torch then reads is a copy of what was checked.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from hpcule.config.errors import DataError

_GRAPHS = re.compile(r"models/model\.json|serialized_exported_program\.json")
_PLAIN = re.compile(
    r"archive_format|archive_version|version|byteorder|\.data/(version|serialization_id)|"
    r"data/weights/(weight_\d+|model_weights_config\.json)|data/constants/(tensor_\d+|model_constants_config\.json)"
)
"""Members without pickles: texts, and weights as raw numbers, where the configuration next to them says so."""
_PICKLED = re.compile(r"data/sample_inputs/model\.pt|serialized_(state_dict|constants|example_inputs)\.pt")
"""Members that torch.save has written: tensors, which a reader that knows nothing else must be able to read."""
_UNUSED = ("extra/", "extra_files/")
_CONFIGURATIONS = re.compile(r"data/(weights|constants)/model_\w+_config\.json")

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TEXT = re.compile(r"[A-Za-z0-9_.+ :-]*")
"""What any other text of a graph consists of: nothing that could be code."""
_OPERATORS = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!from_file\b)_?[a-z]\w*(\.[A-Za-z]\w*)?|torch\.sym_[a-z]+|math\.(ceil|floor|trunc|sqrt)|"
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|neg|getitem|lt|le|gt|ge|eq|ne|and_|or_|not_|pow)"
)
_CONTAINERS = {None, "builtins.tuple", "builtins.list", "builtins.dict"}
_FUNCTIONS = {
    *("Symbol", "Integer", "Rational", "Float", "Max", "Min", "Mod", "PythonMod", "FloorDiv", "CleanDiv", "IntTrueDiv"),
    *("FloatTrueDiv", "CeilToInt", "FloorToInt", "TruncToInt", "ToFloat", "ModularIndexing", "Where", "Abs", "Add"),
    *("Mul", "Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not"),
}
_ARITHMETIC = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.Load, ast.keyword, ast.cmpop)
_OPERATIONS = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.FloorDiv, ast.Mod, ast.USub, ast.UAdd, ast.Not, ast.boolop)


class _RefusedError(Exception):
    """A member of an archive that is not opened."""


def read_program(path: Path) -> Any:
    """The program in a file, as a module that maps a batch to a batch.

    Raises:
        DataError: the file is no such archive, or holds what could run code when it is opened.
    """
    try:
        copy = _checked_copy(path)
    except _RefusedError as error:
        raise DataError(
            f"{path}: refused unopened, since opening it could run code: {error}; export the network again with "
            "torch.export.save, from plain tensors and operators of torch"
        ) from None
    except Exception as error:  # foreign bytes come out as whatever the parsers raise
        raise DataError(_no_program(path, error)) from None
    try:
        return torch.export.load(copy).module()
    except Exception as error:
        raise DataError(_no_program(path, error)) from None


def _no_program(path: Path, error: Exception) -> str:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"{path}: not a program that torch.export.save has written ({reason})"


def _checked_copy(path: Path) -> io.BytesIO:
    copy = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(copy, "w", zipfile.ZIP_STORED) as out:
        members = archive.infolist()
        names = [member.filename for member in members]
        if len(set(names)) < len(names):
            raise _RefusedError("a name occurs twice in the archive")
        # torch's own writer puts everything into one folder, and releases before 2.8 into none.
        folder = names[0].partition("/")[0] + "/" if all("/" in name for name in names) else ""
        for member in members:
            name = member.filename.removeprefix(folder)
            if name.startswith(_UNUSED):
                continue
            if member.compress_type != zipfile.ZIP_STORED:
                raise _RefusedError(f"{name} is compressed")
            out.writestr(folder + name, _checked(name, archive.read(member)))
    copy.seek(0)
    return copy


def _checked(name: str, data: bytes) -> bytes:
    """The member as it is passed on."""
    if _GRAPHS.fullmatch(name):
        return _checked_graph(data)
    if _CONFIGURATIONS.fullmatch(name):
        _check_configuration(name, data)
    elif _PICKLED.fullmatch(name):
        _check_tensors(name, data)
    elif not _PLAIN.fullmatch(name):
        raise _RefusedError(f"it holds {name!r}, which a program of torch's operators does not need")
    return data


def _check_tensors(name: str, data: bytes) -> None:
    try:
        torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception:
        raise _RefusedError(f"{name} holds pickled objects") from None


def _check_configuration(name: str, data: bytes) -> None:
    for weight, entry in json.loads(data)["config"].items():
        if entry["use_pickle"] or not re.fullmatch(r"(weight|tensor)_\d+", entry["path_name"]):
            raise _RefusedError(f"{weight} of {name} is a pickled object")


def _checked_graph(data: bytes) -> bytes:
    """The graph without what torch evaluates and the program does not need: checks of shapes, and notes on origin."""
    graph = json.loads(data)
    graph["guards_code"] = []
    for node in graph["graph_module"]["graph"]["nodes"]:
        node["metadata"] = {}
    for key, text in _texts(graph):
        _check_text(key, text)
    return json.dumps(graph).encode()


def _texts(tree: object, key: str = "") -> Iterator[tuple[str, str]]:
    """Every text in a document, with the name of the entry that it is in; names are texts themselves."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            yield "", name
            yield from _texts(value, name)
    elif isinstance(tree, list):
        for value in tree:
            yield from _texts(value, key)
    elif isinstance(tree, str):
        yield key, tree


def _check_text(key: str, text: str) -> None:
    if key == "expr_str":
        safe = _is_arithmetic(text)
    elif key in ("in_spec", "out_spec"):
        safe = not text or _is_specification(json.loads(text))
    elif key == "target":
        safe = _OPERATORS.fullmatch(text) is not None
    elif key in ("name", "as_name", "forward_arg_names"):
        safe = _WORD.fullmatch(text) is not None or not text
    else:
        safe = _TEXT.fullmatch(text) is not None
    if not safe:
        raise _RefusedError(f"its graph has {key or 'an entry'} {text[:60]!r}")


def _is_arithmetic(text: str) -> bool:
    """Whether an expression of sizes, which sympy evaluates as Python, computes with numbers and symbols alone."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            safe = isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS
        elif isinstance(node, ast.Name):
            safe = node in called or re.fullmatch(r"[a-z]+\d+", node.id) is not None
        elif isinstance(node, ast.Constant):
            safe = not isinstance(node.value, str) or re.fullmatch(r"[a-z]+\d+", node.value) is not None
        else:
            safe = isinstance(node, _ARITHMETIC + _OPERATIONS)
        if not safe:
            return False
    return True


def _is_specification(document: object) -> bool:
    """Whether a specification of inputs or outputs, which torch builds, is of the format whose trees are known here."""
    return isinstance(document, list) and len(document) == 2 and document[0] == 1 and _is_of_containers(document[1])


def _is_of_containers(tree: object) -> bool:
    """Whether it consists of tuples, lists and dicts alone; any other type could be one that torch imports."""
    if not isinstance(tree, dict) or set(tree) != {"type", "context", "children_spec"}:
        return False
    keys = json.loads(tree["context"] or "null") or []
    named = isinstance(keys, list) and all(isinstance(key, str) and _WORD.fullmatch(key) for key in keys)
    return named and tree["type"] in _CONTAINERS and all(map(_is_of_containers, tree["children_spec"]))
