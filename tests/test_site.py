"""The documentation site: its strict build, which fails on broken links and anchors, and its navigation."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hpcule.cli.main import VERBS

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_strict_build(tmp_path):
    pytest.importorskip("mkdocs", reason="needs the extra docs")
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", tmp_path / "site"],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert built.returncode == 0, built.stderr
    pages = {path.relative_to(tmp_path / "site").as_posix() for path in (tmp_path / "site").rglob("*.html")}
    assert {"index.html", "concepts.html", "methods/index.html", "methods/uc.html", "bench/index.html"} <= pages
    verbs = re.findall(r'<h2 id="hpcule-(\w+)"', (tmp_path / "site" / "reference" / "cli.html").read_text())
    assert sorted(verbs) == sorted(VERBS)
    python = (tmp_path / "site" / "reference" / "python.html").read_text()
    assert {"hpcule.evaluate", "hpcule.interface.craft.craft", "hpcule.craft.method.Method"} <= set(
        re.findall(r'id="([\w.]+)"', python)
    )


def test_the_navigation_names_every_page_but_those_of_single_methods():
    named = set(re.findall(r"^ +- (?:\w+: )?([\w./-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE))
    pages = [*ROOT.glob("[A-Z]*.md"), *ROOT.glob("[!.]*/README.md"), *(ROOT / "docs").rglob("*.md")]
    named -= {"reference/cli.md", "reference/python.md"}
    methods = {path for path in pages if path.parent.name == "methods" and path.name != "README.md"}
    assert named == {path.relative_to(ROOT).as_posix() for path in set(pages) - methods}
