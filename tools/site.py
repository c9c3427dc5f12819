"""Hook of MkDocs that lays out the documentation site; see mkdocs.yml.

Pages keep their paths in the repository, so that one and the same relative link works on a code host and on the site.
Pages outside docs/ and the files that pages link to are added, and the references are generated: the command line's
from the parsers, the Python interface's from the docstrings.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from hpcule.cli.main import add_verbs

ROOT = Path(__file__).resolve().parents[1]
PATTERNS = ("*.md", "LICENSE", "bench/README.md", "launch/*", "configs/**/*.yaml", "docs/**/*.*")
PYTHON_REFERENCE = """# Python

::: hpcule
    options: { filters: ["!^_"] }

::: hpcule.interface.craft.craft
    options: { heading: hpcule.craft, toc_label: hpcule.craft }

::: hpcule.craft.method.Method
"""


def on_files(found: Files, config: MkDocsConfig) -> Files:
    """Return the files of the site, by their paths in the repository."""
    paths = sorted({path for pattern in PATTERNS for path in ROOT.glob(pattern) if path.is_file()})
    files = [File.generated(config, path.relative_to(ROOT).as_posix(), abs_src_path=str(path)) for path in paths]
    for file in files:
        file.dest_uri = file.dest_uri.removeprefix("docs/")
    references = {"cli": "".join(command_line()), "python": PYTHON_REFERENCE}
    files += [File.generated(config, f"reference/{name}.md", content=text) for name, text in references.items()]
    return Files([file for file in found if file.src_dir != config.docs_dir] + files)


def command_line() -> Iterator[str]:
    """Yield the pieces of the command line's reference, as Markdown."""
    yield "# Command line\n\n`hpcule VERB ...` and `python -m hpcule VERB ...` are the same.\n"
    parser = argparse.ArgumentParser(prog="hpcule")
    verbs = parser.add_subparsers()
    add_verbs(verbs)
    yield from parts(verbs, level=2)


def parts(verbs: argparse._SubParsersAction[argparse.ArgumentParser], level: int) -> Iterator[str]:
    """Yield a section for each verb, or for each part of a verb."""
    helps = {choice.dest: choice.help for choice in verbs._choices_actions}
    for name, parser in verbs.choices.items():
        yield f"\n{'#' * level} {parser.prog}\n\n{sentence(helps.get(name) or parser.description or '')}\n"
        inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
        if inner:
            yield from parts(inner[0], level + 1)
            continue
        parser.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=78)
        yield f"\n```text\n{parser.format_usage().removeprefix('usage: ').rstrip()}\n```\n"
        rows = [row(action) for action in parser._actions if action.dest != "help"]
        if rows:
            yield "\n| argument | meaning |\n| --- | --- |\n" + "".join(rows)


def row(action: argparse.Action) -> str:
    """Return an argument's row of the table."""
    metavar = action.metavar if isinstance(action.metavar, str) else "" if action.nargs == 0 else action.dest.upper()
    if action.choices:
        metavar = ", ".join(str(choice) for choice in action.choices)
    name = ", ".join(action.option_strings) or metavar
    value = f" {metavar}" if action.option_strings and metavar else ""
    meaning = (action.help or "").replace("%%", "%").replace("|", "\\|")
    return f"| `{name}{value}` | {meaning} |\n"


def sentence(text: str) -> str:
    """Return a text with a capital and a full stop."""
    return text[:1].upper() + text[1:].rstrip(".") + "." if text else ""
