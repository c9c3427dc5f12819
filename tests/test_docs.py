"""What the README and the pages of docs/ say exists: links, commands, options, settings and their values, methods."""

from __future__ import annotations

import argparse
import dataclasses
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpcule.cli.evaluate import SUITES_HELP
from hpcule.cli.main import add_verbs
from hpcule.config.tree import build_config, load_yaml, merged, to_tree, with_overrides
from hpcule.craft.table import METHODS, configure
from hpcule.data.opening import Opening
from hpcule.evaluation.candidates import RecommendConfig
from hpcule.evaluation.suites import SUITES, EvaluateConfig
from hpcule.nets import NETS
from hpcule.probes.certify import CertifyConfig
from hpcule.probes.recovery import RecoveryConfig
from hpcule.probes.strip import StripConfig
from hpcule.probes.unlearnable_distance import DistanceConfig
from hpcule.store.verify import Damage
from hpcule.study.config import StudyVictimConfig
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.purify import PURIFICATIONS
from hpcule.victim.countermeasures.table import COUNTERMEASURES
from hpcule.victim.recipe import TRANSFERS
from hpcule.victim.single import TrainConfig

PLAIN_CONFIGS: dict[str, Any] = {
    "certify": CertifyConfig,
    "distance": DistanceConfig,
    "recommend": RecommendConfig,
    "recover": RecoveryConfig,
    "strip": StripConfig,
    "train": TrainConfig,
}
"""Of commands whose defaults are those of the configuration."""
LARGER = ("resnet50", "senet18", "vgg16", "densenet121", "mobilenet-v2", "vit")
ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "bench" / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTING = re.compile(r"(?:method|store|world|victim)\.(?!py$)[a-z_]+")


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_page = pytest.mark.parametrize("page", PAGES, ids=named)


def blocks(page: Path) -> list[str]:
    """Lines of fenced and of indented code."""
    fenced = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
    text = page.read_text()
    return "".join(fenced.findall(text) + re.findall(r"^    .*\n", fenced.sub("", text), re.MULTILINE)).splitlines()


def spans(page: Path) -> list[str]:
    """Code inside a line."""
    return re.findall(r"`([^`\n]+)`", page.read_text())


def commands(lines: list[str]) -> list[list[str]]:
    """Arguments of what is written as `hpcule ARGUMENTS` or `... -m hpcule ARGUMENTS`."""
    found = [re.search(r"(?:^|\s)hpcule ([a-z].*)", line) for line in lines]
    return [shlex.split(match[1], comments=True) for match in found if match]


def parser_of_all_verbs() -> tuple[argparse.ArgumentParser, Any]:
    parser = argparse.ArgumentParser(prog="hpcule", exit_on_error=False)
    verbs = parser.add_subparsers(required=True)
    add_verbs(verbs)
    return parser, verbs


def leaves(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat.update(leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name: value})
    return flat


def craft_settings(method: str, preset: str = "paper") -> dict[str, Any]:
    """Value of every setting of a craft run by name."""
    return leaves(to_tree(configure(method, "DATA", preset=preset, file={}, overrides=[])))


def all_settings() -> set[str]:
    configs = (EvaluateConfig(), *(config() for config in PLAIN_CONFIGS.values()))
    others = {name for config in configs for name in leaves(to_tree(config))}
    return {name for method in METHODS for name in craft_settings(method)} | others


def tables(page: Path) -> list[tuple[list[str], list[list[str]]]]:
    """Heading and rows of each table of a page, cells stripped."""
    found = []
    for table in re.findall(r"(?:^\|.*\|\n)+", page.read_text(), re.MULTILINE):
        heading, _, *rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in table.splitlines()]
        found.append((heading, rows))
    return found


def settings_tables(page: Path) -> list[tuple[list[str], list[list[str]]]]:
    return [(heading, rows) for heading, rows in tables(page) if heading[0] == "setting"]


def same(written: str, value: Any) -> bool:
    """Whether a cell writes this value: — is none, and YAML the rest."""
    if value is None or written == "—":
        return value is None and written == "—"
    if isinstance(value, bool | str):
        return written == str(value).lower()
    if isinstance(value, float):
        return float(written) == value
    read = yaml.safe_load(written)
    return bool(read == (list(value) if isinstance(value, tuple) else value))


@every_page
def test_links(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        place = (page.parent / path).resolve() if path else page
        assert place.exists(), f"{named(page)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{named(page)} links to {target}"


def options_of(parser, arguments):
    """The options of a verb, or of the part of a verb that the arguments name."""
    known = set(parser._option_string_actions)
    for action in parser._subparsers._group_actions if parser._subparsers else []:
        known |= set(action.choices[arguments[0]]._option_string_actions) if arguments else set()
    return known


def test_every_page_is_reached_from_the_readme():
    seen, left = set(), [ROOT / "README.md"]
    while left:
        page = left.pop()
        seen.add(page)
        links = re.findall(r"\]\(([^)\s#]+\.md)(?:#[^)]*)?\)", page.read_text())
        left += [place for link in links if (place := (page.parent / link).resolve()) in PAGES and place not in seen]
    assert seen == set(PAGES)


@every_page
def test_files_exist(page):
    for path in re.findall(r"(?:configs|bench)/[\w/.-]+\.(?:yaml|py)", page.read_text()):
        assert (ROOT / path).is_file(), f"{named(page)} names {path}"


@every_page
def test_commands(page):
    parser, verbs = parser_of_all_verbs()
    for verb, *arguments in commands(blocks(page) + spans(page)):
        assert verb in verbs.choices, f"{named(page)}: hpcule {verb}"
        known = options_of(verbs.choices[verb], arguments)
        for option in (text.partition("=")[0] for text in arguments if text.startswith("--")):
            assert option in known, f"{named(page)}: hpcule {verb} {option}"
    for arguments in commands(blocks(page)):
        check_settings(parser.parse_args(arguments), arguments)


def check_settings(options: argparse.Namespace, arguments: list[str]) -> None:
    """Build the configuration that a whole command would run with."""
    file = load_yaml(ROOT / options.config) if getattr(options, "config", None) else {}
    if arguments[0] == "craft":
        configure(options.method, options.data, preset=options.preset, file=file, overrides=options.overrides)
    elif arguments[0] == "evaluate" or arguments[0] == "compare":
        build_config(EvaluateConfig, with_overrides(merged(SUITES[options.suite], file), options.overrides))
    elif arguments[0] in PLAIN_CONFIGS:
        build_config(PLAIN_CONFIGS[arguments[0]], with_overrides(file, options.overrides))


def test_the_readme_shows_every_verb_that_a_data_owner_needs():
    shown = {arguments[0] for arguments in commands(blocks(ROOT / "README.md"))}
    assert {"methods", "craft", "verify", "evaluate", "export"} <= shown


@every_page
def test_settings_exist(page):
    known, text = all_settings(), page.read_text()
    for name in re.findall(r"--set[ =]([a-z_.]+)=", text):
        assert name in known, f"{named(page)}: --set {name}"
    of_studies = {f"victim.{name}" for name in leaves(to_tree(StudyVictimConfig()))}
    for name in (span.partition("=")[0] for span in spans(page)):
        if SETTING.fullmatch(name):
            assert name in known | of_studies, f"{named(page)}: {name}"


def test_other_settings():
    craft, evaluate = settings_tables(ROOT / "docs" / "settings.md")
    common = {name: value for name, value in craft_settings("pil").items() if not name.startswith("method.")}
    del common["data"]
    assert_defaults(craft[1], common)
    own = {name: value for name, value in leaves(to_tree(EvaluateConfig())).items() if not name.startswith("world.")}
    assert_defaults(evaluate[1], own)
    both = {name for name in leaves(to_tree(TrainConfig())) if not name.startswith("world.")}
    assert both == {
        "seed",
        *(field.name for field in dataclasses.fields(Opening)),
        *(name for name in own if name.startswith("victim.")),
    }


@pytest.mark.parametrize(
    ("page", "config", "own_victim"),
    [
        ("certificates.md", CertifyConfig(), {"weight_noise"}),
        ("distance.md", DistanceConfig(), {"countermeasures"}),
        ("recovery.md", RecoveryConfig(), set()),
    ],
)
def test_settings_of_measures(page, config, own_victim):
    (table,) = settings_tables(ROOT / "docs" / page)
    own = leaves(to_tree(config))
    assert_defaults(table[1], {name: own[name] for name in own if not name.startswith(("victim.", "world."))})
    changed = {name for name, value in leaves(to_tree(VictimConfig())).items() if own[f"victim.{name}"] != value}
    assert changed == own_victim


def assert_defaults(rows: list[list[str]], values: dict[str, Any]) -> None:
    assert {name.strip("`") for name, *_ in rows} == set(values)
    for name, default, _ in rows:
        assert same(default, values[name.strip("`")]), f"{name}: {default}"


def test_suites():
    ((_, rows),) = [table for table in tables(ROOT / "docs" / "concepts.md") if table[0][0] == "suite"]
    assert {name.strip("`") for name, *_ in rows} == set(SUITES)
    for name, recipes, seeds, network in rows:
        config = build_config(EvaluateConfig, SUITES[name.strip("`")])
        if name != "`full`":
            assert recipes.split(", ") == [recipe.name for recipe in config.recipes]
        assert int(seeds) == len(config.seeds)
        assert f"{name.strip('`')}: {len(config.recipes)} recipes" in SUITES_HELP
        assert network == config.victim.network
    full = build_config(EvaluateConfig, SUITES["full"]).recipes
    later = ["crop-flip+grayscale+jpeg-50+test-too", "linear-probe@efficientnet-lite0"]
    mixtures = [f"crop-flip+mix-{share}" for share in (0.9, 0.8, 0.5, 0.2)]
    elsewhere = (*TRANSFERS, *PURIFICATIONS, "test-too")
    runs_anywhere = [name for name, kind in COUNTERMEASURES.items() if name not in elsewhere and not kind.window]
    first = [name for name in runs_anywhere if COUNTERMEASURES[name].stage == "features"]
    others = [
        name if COUNTERMEASURES[name].stage == "few" else f"crop-flip+{name}"
        for name in runs_anywhere
        if name not in first
    ]
    networks = [f"crop-flip@{name}" for name in NETS if name in LARGER]
    assert [recipe.name for recipe in full] == ["plain", "crop-flip", *others, *first, *later, *mixtures, *networks]


def test_countermeasures():
    ((_, rows),) = [table for table in tables(ROOT / "docs" / "countermeasures.md") if table[0][0] == "step"]
    assert [name.strip("`") for name, *_ in rows] == list(COUNTERMEASURES)
    for (name, strength, _), kind in zip(rows, COUNTERMEASURES.values(), strict=True):
        written = "" if kind.default is None else f"{kind.default:g} ({kind.lowest:g} to {kind.highest:g})"
        assert strength == written, name


def test_ghosts_and_batches():
    ((heading, rows),) = [
        table for table in tables(ROOT / "docs" / "concepts.md") if table[0][1:] == ["PIL", "EM", "UC"]
    ]
    written = {row[0]: row[1:] for row in rows}
    for column, method in enumerate(heading[1:]):
        settings = craft_settings(method.lower())
        assert written["g (`method.ghost`)"][column] == str(settings["method.ghost"])
        assert written["batch (`method.batch`)"][column] == str(settings["method.batch"])


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text()
    assert len(text.split()) <= 1100


def test_kinds_of_damage():
    ((_, rows),) = [table for table in tables(ROOT / "docs" / "store.md") if table[0][0] == "kind"]
    written = {kind for kinds, *_ in rows for kind in kinds.split(", ")}
    in_docstring = (Damage.__doc__ or "").partition("kind:")[2].partition("file:")[0]
    assert written == set(re.findall(r'"([a-z ]+)"', in_docstring))


def test_python_in_the_pages_reads_a_store(tmp_path, monkeypatch):
    """The programs of docs/store.md, on the stores that they name."""
    from hpcule.cli.main import main

    monkeypatch.chdir(tmp_path)
    smoke = ["--data", "digits", "--preset", "smoke", "--set", "world.threads=1", "--json"]
    assert main(["craft", "pil", "--out", "my-store", *smoke]) == 0
    small = ["method.unit=class", "method.surrogate=convnet", "method.model_steps=1", "method.max_rounds=1"]
    assert main(["craft", "em", "--out", "my-store-3", *smoke, *(f"--set={setting}" for setting in small)]) == 0
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / "docs/store.md").read_text(), re.MULTILINE | re.DOTALL)
    assert programs
    for program in programs:
        names: dict[str, Any] = {}
        exec(program, names)
        assert names["delta"].shape == (4, 1, 8, 8)
        assert names["delta"].any()


@pytest.mark.parametrize("name", ["README.md", "docs/launchers.md", "launch/torchrun.sh"])
def test_torchrun_is_shown_only_with_its_static_rendezvous(name):
    """The other one, which it takes where it is given no port, unpickles what anybody sends there."""
    found = re.findall(r"\btorchrun (?:\S+ )*?--nproc-per-node[^`]*?-m hpcule", (ROOT / name).read_text())
    assert found
    assert all("--master-port" in start for start in found)
    assert not any(other in start for start in found for other in ("--standalone", "c10d"))
