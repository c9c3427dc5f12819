"""docs/python.md: all of its blocks, in order, in an empty folder."""

from __future__ import annotations

import logging
import re
import shlex
import sys
from pathlib import Path

import pytest

from hpcule.cli.main import main

PAGE = Path(__file__).parents[2] / "docs" / "python.md"
NAMED = re.compile(r"# ([\w.-]+\.(?:py|yaml))\n")


@pytest.mark.slow
def test_every_block_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "my_nets", raising=False)
    level = logging.getLogger("hpcule").level
    blocks = re.findall(r"^```(\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in blocks].count("python") > 10
    names: dict[str, object] = {}
    for kind, text in blocks:
        if named := NAMED.match(text):
            Path(named[1]).write_text(text)
        elif kind == "python":
            exec(compile(text, f"{PAGE.name}: {text[:40]!r}", "exec"), names)
        else:
            assert kind == "sh"
            assert main(shlex.split(text)[1:]) == 0
    logging.getLogger("hpcule").setLevel(level)
    stores = sorted(path.parent.name for path in tmp_path.glob("*/manifest.json"))
    assert stores == ["store", "store-2", "store-3", "store-of-a-dataset", "store-of-arrays"]
