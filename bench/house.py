"""How the package is built, in figures: sizes, circles, names, `Any`, docstrings without a subject.

Everything is read from the syntax trees of the source; nothing is imported. Each figure is printed next to its limit,
and `--list` names what it counts. How the figures are counted:

Files and folders: lines of every `.py` file of the package. A folder's size is the number of files of code that lie
directly in it, `__init__.py` excluded; `craft/methods` has no limit, because it has one file for each method.

Modules that one other module imports, and circles: an import counts wherever it stands, so also inside a function and
under TYPE_CHECKING, and `from package import module` counts as an import of `module`. A circle is a set of modules in
which each one reaches all others (a strongly connected component).

Homonyms: names of functions and classes that two or more modules define at their top level; separately those of
constants and type aliases, which mostly stay inside their module, and base names of files in two or more folders. Left
out are names with a leading underscore, `__init__.py`, and what every verb of the command line has by design:
functions of `cli/` named `add_to` and `run`, and files of `cli/`, which are named after the verbs.

Any: `dict[str, Any]` and `Mapping[str, Any]` wherever they are written, and parameters annotated with exactly `Any`.

Headless docstrings: docstrings of one line, of functions and classes and below attributes, that are no noun phrase or
sentence of their own and so say nothing in a tooltip. Two signs decide: a first word that leans on something else (a
preposition, a conjunction, a pronoun or a quantity without its noun: "Of the probe.", "None where ...", "Those with
...", "So many steps."), or fewer than three words ("The pattern."). Not counted among the latter are the two-word
imperatives "Check ranges." and "See `Source.read`.", which are sentences. A sentence that begins with a subordinate
clause ("After a craft, ...") is counted although it is complete; it can begin with its subject.

Imports that do not point down: between rooms, by LEVELS in the checkout's tests/test_imports.py.

Tuple-packed assignments: `a, b = x, y`, a tuple on both sides, per 1,000 lines. Words of the README: as `wc -w`.

    python bench/house.py
    python bench/house.py --root OTHER_CHECKOUT --list homonyms headless
"""

from __future__ import annotations

import argparse
import ast
import json
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

SHORT_FILE, LONG_FILE, FULL_FOLDER = 60, 400, 25
UNLIMITED = ("craft/methods",)
VERB_NAMES = {"add_to", "run"}
FEWEST_WORDS = 3
LOOSE = ("dict[str, Any]", "Mapping[str, Any]")
IMPERATIVES = {"check", "see"}
LEANING = re.compile(
    r"(?i)(about|above|after|against|along|also|among|and|anew|around|as|at|because|before|behind|below|beneath|beside"
    r"|besides|between|beyond|but|by|despite|down|during|except|for|from|if|in|inside|into|just|like|much|near|neither"
    r"|none|nor|nothing|of|off|on|once|onto|or|otherwise|out|outside|over|per|since|so|than|that|theirs|them|then|those"
    r"|though|through|throughout|thus|till|to|towards?|under|unless|until|up|upon|via|when|while|whom|whose|with|within"
    r"|without|yet)"
)
"""First words of docstrings that need something before them; the module's docstring says why."""


@dataclass(frozen=True)
class Module:
    """A parsed file of the package: its dotted name, its path under the package's parent, its text and its tree."""

    name: str
    path: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """Number of lines."""
        return len(self.text.splitlines())

    @property
    def is_package(self) -> bool:
        """Whether it is the `__init__.py` of a folder."""
        return self.path.endswith("__init__.py")


@dataclass(frozen=True)
class Figure:
    """One measured property: what it is, its value, its limit if there is one, and the places it counts."""

    key: str
    what: str
    value: float
    limit: float | None
    places: list[str]

    @property
    def held(self) -> bool:
        """Whether the value is within its limit; true without a limit."""
        return self.limit is None or self.value <= self.limit


def modules_of(root: Path) -> list[Module]:
    """All modules of the package in a checkout, sorted by path."""
    found = []
    for path in sorted((root / "hpcule").rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = path.read_text(encoding="utf-8")
        found.append(Module(name, str(path.relative_to(root)), text, ast.parse(text)))
    return found


def imports_of(module: Module, known: set[str]) -> set[str]:
    """Names of the other modules of the package that a module imports, anywhere in it."""
    package = module.name.split(".") if module.is_package else module.name.split(".")[:-1]
    found = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                found.add(f"{source}.{alias.name}" if f"{source}.{alias.name}" in known else source)
    return (found & known) - {module.name}


def circles(arrows: Mapping[str, set[str]]) -> list[list[str]]:
    """Sets of two or more modules that all reach each other."""
    reach: dict[str, set[str]] = {}
    for start in arrows:
        seen: set[str] = set()
        waiting = list(arrows[start])
        while waiting:
            here = waiting.pop()
            if here not in seen:
                seen.add(here)
                waiting.extend(arrows[here])
        reach[start] = seen
    groups = {
        tuple(sorted({name} | {other for other in reach[name] if name in reach[other]}))
        for name in arrows
        if name in reach[name]
    }
    return [list(group) for group in sorted(groups)]


def defined(module: Module) -> Iterator[str]:
    """Names of the public functions and classes at a module's top level."""
    verb = module.name.startswith("hpcule.cli.")
    for node in module.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        if not node.name.startswith("_") and not (verb and node.name in VERB_NAMES):
            yield node.name


def assigned(module: Module) -> Iterator[str]:
    """Names of the public constants and type aliases at a module's top level."""
    for node in module.tree.body:
        names: list[str] = []
        if isinstance(node, ast.Assign):
            names = [item.id for target in node.targets for item in ast.walk(target) if isinstance(item, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def homonyms(modules: Iterable[Module], names: Callable[[Module], Iterable[str]]) -> list[str]:
    """Names with two or more homes, each with the modules that define it."""
    homes: dict[str, set[str]] = defaultdict(set)
    for module in modules:
        for name in names(module):
            homes[name].add(module.name)
    return [f"{name}: {', '.join(sorted(where))}" for name, where in sorted(homes.items()) if len(where) > 1]


def same_basenames(modules: Iterable[Module]) -> list[str]:
    """Base names of files that lie in two or more folders outside `cli`."""
    homes: dict[str, list[str]] = defaultdict(list)
    for module in modules:
        if not module.is_package and not module.name.startswith("hpcule.cli."):
            homes[module.name.rpartition(".")[2]].append(module.path)
    return [f"{name}.py: {', '.join(paths)}" for name, paths in sorted(homes.items()) if len(paths) > 1]


def is_any(node: ast.expr | None) -> bool:
    """Whether an annotation is exactly `Any`."""
    return (isinstance(node, ast.Name) and node.id == "Any") or (isinstance(node, ast.Constant) and node.value == "Any")


def any_parameters(module: Module) -> Iterator[str]:
    """Parameters annotated with `Any`."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs, node.args.vararg, node.args.kwarg]
            for parameter in every:
                if parameter is not None and is_any(parameter.annotation):
                    yield f"{module.path}:{parameter.lineno} {node.name}({parameter.arg})"


def loose_dicts(module: Module) -> Iterator[str]:
    """Places where `dict[str, Any]` or `Mapping[str, Any]` is written."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Subscript) and ast.unparse(node) in LOOSE:
            yield f"{module.path}:{node.lineno}"


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Line and text of the docstrings of functions and classes, and of the strings below attributes."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for position, statement in enumerate(body):
            if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                text = statement.value.value
                after_attribute = position > 0 and isinstance(body[position - 1], ast.Assign | ast.AnnAssign)
                first = position == 0 and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
                if isinstance(text, str) and (after_attribute or first):
                    yield statement.lineno, text


def is_headless(text: str) -> bool:
    """Whether a docstring of one line has no subject of its own; the module's text says by which signs."""
    if "\n" in text.strip():
        return False
    words = re.findall(r"[\w'`.,\[\]-]+", text)
    first = words[0].strip("`.,'").lower() if words else ""
    return bool(LEANING.fullmatch(first)) or (len(words) < FEWEST_WORDS and first not in IMPERATIVES)


def headless(module: Module) -> Iterator[str]:
    """Docstrings of one line without a subject."""
    for line, text in docstrings(module.tree):
        if is_headless(text):
            yield f"{module.path}:{line} {text.strip()}"


def packed(module: Module) -> Iterator[str]:
    """Assignments with a tuple on both sides."""
    for node in ast.walk(module.tree):
        if not isinstance(node, ast.Assign) or not isinstance(node.value, ast.Tuple):
            continue
        if any(isinstance(target, ast.Tuple) for target in node.targets):
            yield f"{module.path}:{node.lineno}"


def levels_of(root: Path) -> dict[str, int]:
    """Height of each room of the package, as the checkout's test of imports declares it; empty without that test."""
    path = root / "tests" / "test_imports.py"
    for node in ast.parse(path.read_text(encoding="utf-8")).body if path.exists() else []:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "LEVELS":
            levels: dict[str, int] = ast.literal_eval(node.value)
            return levels
    return {}


def upward(module: Module, others: Iterable[str], levels: Mapping[str, int]) -> Iterator[str]:
    """Imports of a room that does not lie below the module's own."""
    room = module.name.split(".")[1] if "." in module.name else ""
    for other in sorted(others):
        above = other.split(".")[1] if "." in other else ""
        if room != above and {room, above} <= set(levels) and levels[above] >= levels[room]:
            yield f"{module.path} imports {other}"


def measure(root: Path) -> list[Figure]:
    """All figures of a checkout, in the order in which they are printed."""
    modules = modules_of(root)
    code = [module for module in modules if not module.is_package]
    known = {module.name for module in modules}
    arrows = {module.name: imports_of(module, known) for module in modules}
    importers = Counter(other for name in arrows for other in arrows[name])
    short = [f"{module.path}: {module.lines}" for module in code if module.lines < SHORT_FILE]
    long = [f"{module.path}: {module.lines}" for module in modules if module.lines > LONG_FILE]
    lonely = [module.path for module in code if importers[module.name] == 1]
    sizes = Counter(str(Path(module.path).parent.relative_to("hpcule")) for module in code)
    folders = [f"{folder}: {size}" for folder, size in sizes.most_common()]
    full = [
        f"{folder}: {size}" for folder, size in sizes.most_common() if size > FULL_FOLDER and folder not in UNLIMITED
    ]
    rings = [" <-> ".join(ring) for ring in circles(arrows)]
    tuples = [place for module in modules for place in packed(module)]
    lines = sum(module.lines for module in modules)
    words = len((root / "README.md").read_text(encoding="utf-8").split())
    names = homonyms(modules, defined)
    constants = homonyms(modules, assigned)
    bases = same_basenames(modules)
    dicts = [place for module in modules for place in loose_dicts(module)]
    anys = [place for module in modules for place in any_parameters(module)]
    bare = [place for module in modules for place in headless(module)]
    levels = levels_of(root)
    up = [place for module in modules for place in upward(module, arrows[module.name], levels)]
    largest = max(sizes.values())
    return [
        Figure("files", "files of code", len(code), None, []),
        Figure("lines", "lines", lines, None, []),
        Figure("short", f"files under {SHORT_FILE} lines, %", round(100 * len(short) / len(code), 1), None, short),
        Figure("long", f"files over {LONG_FILE} lines", len(long), 0, long),
        Figure("once", "modules that one other imports", len(lonely), None, lonely),
        Figure("folders", "files in the largest folder", largest, None, folders),
        Figure("full", f"folders of more than {FULL_FOLDER} files", len(full), 0, full),
        Figure("circles", "circles of imports", len(rings), 0, rings),
        Figure("up", "imports that do not point down", len(up), 0, up),
        Figure("homonyms", "functions and classes with two homes", len(names), 5, names),
        Figure("constants", "constants and aliases with two homes", len(constants), None, constants),
        Figure("basenames", "module names in two folders", len(bases), None, bases),
        Figure("dicts", "dict[str, Any] and Mapping[str, Any]", len(dicts), 30, dicts),
        Figure("any", "parameters annotated Any", len(anys), 19, anys),
        Figure("headless", "docstrings without a subject", len(bare), 0, bare),
        Figure("packed", "tuple-packed assignments, 1,000 lines", round(1000 * len(tuples) / lines, 1), None, tuples),
        Figure("words", "words of README.md", words, 1_100, []),
    ]


def main() -> None:
    """Print the table, the places behind it with `--list`, or everything as JSON."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[1], help="the checkout to measure")
    parser.add_argument("--list", nargs="*", metavar="KEY", help="name what is counted: all, or the figures given")
    parser.add_argument("--json", action="store_true", help="print figures, limits and places as JSON")
    arguments = parser.parse_args()
    figures = measure(arguments.root)
    if arguments.json:
        print(json.dumps([asdict(figure) for figure in figures], indent=1))
        return
    print(f"{'key':10} {'what':42} {'figure':>8} {'limit':>6}")
    for figure in figures:
        limit = "" if figure.limit is None else f"{figure.limit:g}"
        print(
            f"{figure.key:10} {figure.what:42} {figure.value:>8g} {limit:>6} {'' if figure.held else 'over'}".rstrip()
        )
    if arguments.list is not None:
        for figure in figures:
            if figure.places and (not arguments.list or figure.key in arguments.list):
                print(f"\n{figure.key}: {figure.what}", *figure.places, sep="\n  ")


if __name__ == "__main__":
    main()
