from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config, dump_yaml, load_yaml, merged, to_tree, unknown, with_overrides


@dataclass(frozen=True, kw_only=True)
class Engine:
    kind: Literal["ddp", "deepspeed"] = "ddp"
    betas: tuple[float, ...] = (0.9, 0.999)

    def __post_init__(self) -> None:
        if not self.betas:
            raise ValueError("betas: at least one")


@dataclass(frozen=True, kw_only=True)
class Car:
    name: str
    rate: float = 0.5
    wheels: int = 4
    seats: int | None = None
    fast: bool = False
    engine: Engine = field(default_factory=Engine)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"whels": 3}, "unknown setting 'whels': did you mean 'wheels'?"),
        ({"engine": {"beta": [1]}}, "unknown setting 'engine.beta': did you mean 'engine.betas'?"),
        ({"zzz": 1}, "unknown setting 'zzz'. Valid: name, rate, wheels, seats, fast, engine"),
        ({"name": None}, "name=None: expected a text"),
        ({"rate": "quick"}, "rate=quick: expected a number"),
        ({"rate": True}, "rate=True: expected "),
        ({"rate": [1]}, "expected a number"),
        ({"rate": float("nan")}, "rate=nan: expected a finite number"),
        ({"rate": "1e999"}, "rate=1e999: expected a finite number"),
        ({"rate": 10**400}, "expected a number"),
        ({"wheels": True}, "wheels=True: expected a whole number"),
        ({"wheels": 3.5}, "wheels=3.5: expected a whole number"),
        ({"wheels": "4"}, "wheels=4: expected a whole number"),
        ({"wheels": None}, "wheels=None: expected a whole number"),
        ({"seats": "many"}, "seats=many: expected a whole number"),
        ({"fast": 1}, "fast=1: expected true or false"),
        ({"fast": "yes please"}, "fast=yes please: expected true or false"),
        ({"engine": 5}, "engine=5: 'engine' is a section"),
        ({"engine": {"kind": "horse"}}, "engine.kind=horse: valid are ddp, deepspeed"),
        ({"engine": {"kind": ["ddp"]}}, "valid are ddp, deepspeed"),
        ({"engine": {"betas": 0.9}}, "engine.betas=0.9: expected a list"),
        ({"engine": {"betas": [0.9, "x"]}}, "engine.betas=x: expected a number"),
        ({"engine": {"betas": []}}, "engine.betas: at least one"),
    ],
)
def test_what_is_refused_is_named_with_its_path(tree, message):
    with pytest.raises(UsageError) as caught:
        build_config(Car, {"name": "x", **tree})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_required_setting_that_is_missing_is_named():
    with pytest.raises(UsageError, match=r"missing setting shop\.name"):
        build_config(Car, {"wheels": 3}, "shop.")


@pytest.mark.parametrize(
    ("tree", "name", "value"),
    [
        ({"rate": "1e-4"}, "rate", 1e-4),  # YAML 1.1 has no exponent without a dot
        ({"rate": 2}, "rate", 2.0),
        ({"wheels": 6.0}, "wheels", 6),
        ({"seats": None}, "seats", None),
        ({"seats": 7}, "seats", 7),
        ({"fast": True}, "fast", True),
        ({"name": 17}, "name", "17"),
        ({"engine": {"betas": ["1e-1", 1]}}, "engine", Engine(betas=(0.1, 1.0))),
        ({"engine": {}}, "engine", Engine()),
        ({"engine": Engine(kind="deepspeed")}, "engine", Engine(kind="deepspeed")),
    ],
)
def test_what_is_taken_gets_its_type(tree, name, value):
    found = getattr(build_config(Car, {"name": "x", **tree}), name)
    assert found == value
    assert type(found) is type(value)


def test_overrides_apply_in_order_over_the_tree_and_leave_it_alone():
    tree = {"name": "x", "engine": {"kind": "ddp"}}
    result = with_overrides(tree, ["wheels=3", "engine.betas=[0.5, 1e-4]", "wheels=5", "seats=null", "rate=1e-4"])
    car = build_config(Car, result)
    assert (car.wheels, car.seats, car.rate) == (5, None, 1e-4)
    assert car.engine == Engine(kind="ddp", betas=(0.5, 1e-4))
    assert tree == {"name": "x", "engine": {"kind": "ddp"}}


def test_an_override_may_hold_an_equals_sign_and_be_empty():
    assert with_overrides({}, ["name=a=b", "seats="]) == {"name": "a=b", "seats": None}


@pytest.mark.parametrize("override", ["wheels", "=3", "engine.=3", ".wheels=3", "name=[1", "name.first=x", "name=: :"])
def test_a_broken_override_is_refused_and_quoted(override):
    with pytest.raises(UsageError) as caught:
        with_overrides({"name": "x"}, [override])
    assert f"--set {override}" in str(caught.value)


def test_merging_is_section_by_section_and_copies():
    base = {"a": 1, "b": {"c": 2, "d": 3}, "e": {"f": 4}}
    result = merged(base, {"b": {"d": 30}, "e": 5, "g": {"h": 6}})
    assert result == {"a": 1, "b": {"c": 2, "d": 30}, "e": 5, "g": {"h": 6}}
    result["b"]["c"] = 99
    assert base["b"] == {"c": 2, "d": 3}


def test_a_tree_survives_yaml(tmp_path):
    car = Car(name="Zoë: the 1st", rate=1e-4, seats=2, fast=True, engine=Engine(betas=(1e-5, 0.999)))
    path = tmp_path / "car.yaml"
    path.write_text(dump_yaml(to_tree(car)), encoding="utf-8")
    assert build_config(Car, load_yaml(path)) == car
    assert path.read_text(encoding="utf-8").startswith("name:"), "keys keep their order"


def test_an_empty_file_is_an_empty_tree(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing yet\n")
    assert load_yaml(tmp_path / "empty.yaml") == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1,\nc: 2\n", "is not valid YAML in line"),
        ("- a\n- b\n", "must hold a mapping of settings, not a list"),
        ("just words", "must hold a mapping of settings, not a str"),
        ("a: !!python/object/apply:os.system ['true']\n", "is not valid YAML"),
    ],
)
def test_a_broken_file_is_named(tmp_path, text, message):
    path = tmp_path / "broken.yaml"
    path.write_text(text)
    with pytest.raises(UsageError) as caught:
        load_yaml(path)
    assert str(path) in str(caught.value)
    assert message in str(caught.value)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00broken", b"a: \x00"])
def test_bytes_that_are_no_text_are_refused(tmp_path, content):
    (tmp_path / "bytes.yaml").write_bytes(content)
    with pytest.raises(UsageError, match=r"bytes\.yaml"):
        load_yaml(tmp_path / "bytes.yaml")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"cannot read the configuration .*none\.yaml: No such file"):
        load_yaml(tmp_path / "none.yaml")
    with pytest.raises(UsageError, match="Is a directory"):
        load_yaml(tmp_path)


def test_an_unknown_name_lists_all():
    assert unknown("method", "pill", ["em", "pil"]) == "unknown method 'pill': did you mean 'pil'? Valid: em, pil"
    assert unknown("method", "wwww", ["em", "pil"]) == "unknown method 'wwww'. Valid: em, pil"
