"""A method of another package: that of docs/plug-ins.md, found by its entry point, through the real commands."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from slowly import slow_but

from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

ROOT = Path(__file__).parents[2]


def install(site: Path, name: str, methods: dict[str, str]) -> None:
    """What an installer leaves of a package that has no other files: its metadata."""
    information = site / f"{name}-0.1.0.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\n")
    lines = "".join(f"{method} = {place}\n" for method, place in methods.items())
    (information / "entry_points.txt").write_text(f"[hpcule.methods]\n{lines}")


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder of packages with the documented one."""
    page = (ROOT / "docs" / "plug-ins.md").read_text()
    (project,) = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (program,) = re.findall(r"^```python\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    declared = tomllib.loads(project)["project"]
    folder = tmp_path_factory.mktemp("site")
    install(folder, declared["name"], declared["entry-points"]["hpcule.methods"])
    (folder / "stripes.py").write_text(program)
    return folder


def run(site: Path, *words: object) -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([str(site), str(ROOT), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, "-m", "hpcule", *map(str, words)]
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment, check=False)


def done(site: Path, *words: object) -> str:
    finished = run(site, *words)
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_the_documented_package_runs_through_all_commands(site, tmp_path):
    rows = {row["name"]: row for row in json.loads(done(site, "methods", "--json"))}
    assert rows["stripes"]["title"] == "Stripes: a square wave for each class"
    assert rows["stripes"]["measured"] == []
    store, size = tmp_path / "store", ["--set", "image_size=16"]
    overrides = [*size, "--set", "method.period=3", "--set", "store.shards=4"]
    done(site, "craft", "stripes", "--data", "digits", "--out", store, "--workers", 2, *overrides)
    reader = StoreReader(Vault(store))
    assert reader.manifest.method == "stripes"
    assert reader.manifest.config["method"] == {"name": "stripes", "epsilon": 8.0, "period": 3}
    delta = reader.delta(np.arange(reader.manifest.n))
    assert np.abs(delta).max() == 8
    done(site, "verify", store, "--data", "digits")
    done(site, "export", store, "--data", "digits", "--out", tmp_path / "copy")
    small = ["recipes=[plain]", "seeds=[0]", "victim.network=convnet", "victim.steps=1", "samples=64"]
    settings = [word for setting in small for word in ("--set", setting)]
    done(site, "evaluate", store, "--data", "digits", "--out", tmp_path / "report", *settings)
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert results["protection"]["facts"]["claimed"] == "nothing: it is an example"


@pytest.mark.slow
def test_its_settings_are_checked_as_those_of_a_built_in_method(site, tmp_path):
    words = ["craft", "stripes", "--data", "digits", "--out", tmp_path / "store", "--set"]
    refused = run(site, *words, "method.period=1")
    assert (refused.returncode, refused.stderr) == (2, "hpcule: method.period=1: valid are whole numbers from 2\n")
    assert "did you mean 'method.period'?" in run(site, *words, "method.perod=3").stderr


BROKEN = {
    "absent": ("nowhere:Thing", "cannot be imported (ModuleNotFoundError: No module named 'nowhere')"),
    "number": ("math:pi", "math:pi is no subclass of hpcule.craft.method.Method; docs/plug-ins.md says"),
    "unfinished": ("hpcule.craft.method:Method", "lacks facts, config_class, presets, __init__"),
    "ops": ("stripes:Stripes", "is offered several times, by hpcule itself, the package broken: uninstall all but"),
}


@pytest.fixture(scope="module")
def site_with_broken(site, tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    install(folder, "broken", {name: place for name, (place, _) in BROKEN.items()})
    return Path(f"{folder}{os.pathsep}{site}")


def test_broken_packages_are_named_and_harm_no_other_method(site_with_broken):
    listed = run(site_with_broken, "methods", "--json")
    assert listed.returncode == 0
    assert sorted(line.split("'")[1] for line in listed.stderr.splitlines()) == sorted(BROKEN)
    names = {row["name"] for row in json.loads(listed.stdout)}
    assert {"pil", "em", "stripes"} <= names
    assert not names & set(BROKEN)


@pytest.mark.parametrize("name", slow_but(["ops"], BROKEN))
def test_a_broken_method_says_so_when_it_is_used(site_with_broken, tmp_path, name):
    used = run(site_with_broken, "craft", name, "--data", "digits", "--out", tmp_path / "store")
    assert used.returncode == 1
    assert used.stderr.startswith(f"hpcule: method '{name}' ")
    assert BROKEN[name][1] in used.stderr
    assert used.stderr.count("\n") == 1


def test_names_are_listed_without_importing_methods_or_torch():
    program = (
        "import sys; from hpcule.craft.table import METHODS; assert 'pil' in list(METHODS)\n"
        "assert 'torch' not in sys.modules and 'hpcule.craft.methods.pil' not in sys.modules"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False, cwd=ROOT).returncode == 0
