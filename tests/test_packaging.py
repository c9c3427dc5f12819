"""Recipes of packaging/, starters of launch/: without their programs, what they say can be compared and parsed."""

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "packaging" / "spack" / "spack_repo" / "hpcule" / "packages" / "py_hpcule" / "package.py"
DEFINITION = (ROOT / "packaging" / "apptainer.def").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def without_marks(requirements):
    """Lower bounds by package, from requirements such as `h5py>=3.10`."""
    return dict(re.fullmatch(r"([\w.-]+)(?:>=([\d.]+))?", one).groups() for one in requirements)


@pytest.fixture(scope="module")
def recipe():
    """What the directives of the recipe were called with, by name: Spack's are functions that take them down."""
    calls = {}

    class Held:
        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    def directive(name):
        def call(*words, **more):
            calls.setdefault(name, []).append((words, more))
            return Held()

        return call

    names = ("license", "version", "variant", "depends_on", "default_args")
    source = RECIPE.read_text()
    code = re.sub(r"^from spack.*$", "", source, flags=re.MULTILINE)
    exec(compile(code, RECIPE, "exec"), {name: directive(name) for name in names} | {"PythonPackage": object})
    return calls


def dependencies(recipe, variant=None):
    specs = [words[0] for words, more in recipe["depends_on"] if more.get("when") == variant]
    found = [re.match(r"py-([\w-]+)@([\d.]+):", spec) for spec in specs]
    return dict(match.groups() for match in found if match)


def test_spacks_recipe_needs_what_the_project_needs(recipe):
    assert dependencies(recipe) == without_marks(PROJECT["dependencies"])
    python = [words[0] for words, _ in recipe["depends_on"] if words[0].startswith("python@")]
    assert python == [f"python@{PROJECT['requires-python'].removeprefix('>=')}:"]


def test_spacks_variants_are_extras_of_the_project(recipe):
    variants = [words[0] for words, _ in recipe["variant"]]
    assert variants
    for name in variants:
        extra = without_marks(PROJECT["optional-dependencies"][name])
        assert dependencies(recipe, f"+{name}") == extra, name


def test_spacks_recipe_has_the_projects_version_and_licence(recipe):
    assert recipe["version"] == [((PROJECT["version"],), {})]
    assert recipe["license"] == [((PROJECT["license"],), {})]


def section(name):
    found = re.search(rf"^%{name}\n((?:    .*\n|\n)*)", DEFINITION, re.MULTILINE)
    return found[1]


def test_the_image_has_all_files_that_the_project_is_built_from():
    pairs = [line.split() for line in section("files").splitlines() if line.strip()]
    assert {source for source, _ in pairs} >= {"pyproject.toml", PROJECT["readme"], *PROJECT["license-files"], "hpcule"}
    for source, target in pairs:
        assert (ROOT / source).exists()
        assert target == f"/opt/hpcule/{source}"


def test_the_images_extras_are_those_of_the_project():
    extras = re.search(r"extras=(\S+)", section("arguments"))[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


@pytest.mark.parametrize("name", ["post", "environment", "runscript", "test"])
def test_the_images_shell_parses(name):
    assert subprocess.run(["sh", "-n"], input=section(name), text=True).returncode == 0


@pytest.mark.parametrize(
    "path", [path for path in sorted((ROOT / "launch").iterdir()) if path.suffix != ".md"], ids=str
)
def test_a_starters_shell_parses_and_it_is_described(path):
    assert subprocess.run(["bash", "-n", path]).returncode == 0
    assert f"`{path.name}`" in (ROOT / "launch" / "README.md").read_text()


@pytest.mark.slow
def test_the_image_builds(tmp_path):
    if shutil.which("apptainer") is None:
        pytest.skip("apptainer is not on this machine")
    done = subprocess.run(
        ["apptainer", "build", tmp_path / "hpcule.sif", ROOT / "packaging" / "apptainer.def"], cwd=ROOT, text=True
    )
    assert done.returncode == 0


@pytest.mark.slow
def test_spack_knows_the_recipe():
    if shutil.which("spack") is None:
        pytest.skip("spack is not on this machine")
    done = subprocess.run(
        ["spack", "--config", f"repos:[{RECIPE.parents[2]}]", "info", "py-hpcule"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
