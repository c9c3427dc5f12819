"""Every setting declares its range once, and whatever is out of it is named."""

from dataclasses import dataclass, fields

import pytest

from hpcule.config.errors import UsageError
from hpcule.config.ranges import check_ranges, range_of, setting
from hpcule.config.run import MethodConfig
from hpcule.config.tree import build_config


@dataclass(frozen=True, kw_only=True)
class Base(MethodConfig):
    name: str = "base"
    count: int = setting(3, at_least=1)
    limit: int | None = setting(None, at_least=2, at_most=5)
    rate: float = setting(0.1, above=0)
    share: float = setting(1.0, above=0, at_most=1)
    parts: tuple[float, ...] = setting((0.5,), above=0, below=1)
    budget: float = setting(8.0, at_least=1, at_most=127, words="1 to 127 levels")
    free: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Branch(Base):
    count: int = 7
    rate: float = setting(0.5, at_least=0)


@dataclass(frozen=True, kw_only=True)
class OtherBranch(Base):
    share: float = 0.25


@dataclass(frozen=True, kw_only=True)
class Leaf(Branch, OtherBranch):
    limit: int | None = 4


WORDS = {
    "count": "whole numbers from 1",
    "limit": "whole numbers from 2 up to 5",
    "rate": "numbers above 0",
    "share": "numbers above 0 up to 1",
    "parts": "numbers above 0 and below 1",
    "budget": "1 to 127 levels",
}
VALID = [("count", 1), ("limit", None), ("limit", 2), ("limit", 5), ("rate", 1e-9), ("share", 1), ("parts", [])]
INVALID = [
    ("count", 0, "0"),
    ("limit", 1, "1"),
    ("limit", 6, "6"),
    ("rate", 0, "0"),
    ("share", 1.5, "1.5"),
    ("parts", [0.5, 1], "[0.5, 1.0]"),
    ("budget", 128, "128"),
]


@pytest.mark.parametrize("kind", [Base, OtherBranch])
def test_a_range_is_written_in_words(kind):
    found = {field.name: range_of(field) for field in fields(kind)}
    assert found == {"name": None, "free": None, **WORDS}


def test_a_subclass_that_changes_a_default_keeps_the_range_or_declares_another():
    found = {field.name: (field.default, range_of(field)) for field in fields(Leaf)}
    assert found["count"] == (7, WORDS["count"])
    assert found["limit"] == (4, WORDS["limit"])
    assert found["rate"] == (0.5, "numbers from 0")
    assert [range_of(field) for field in fields(OtherBranch) if field.default == 0.25] == [WORDS["share"]]
    assert Leaf().count == 7
    assert Leaf(rate=0).rate == 0


@pytest.mark.parametrize("kind", [Base, Leaf])
@pytest.mark.parametrize(("name", "value"), VALID)
def test_the_ends_are_valid(kind, name, value):
    found = getattr(build_config(kind, {name: value}), name)
    assert found == (tuple(value) if isinstance(value, list) else value)


@pytest.mark.parametrize(("name", "value", "shown"), INVALID)
def test_the_setting_its_value_and_its_range_are_named(name, value, shown):
    with pytest.raises(UsageError) as caught:
        build_config(OtherBranch, {name: value}, "method.")
    assert str(caught.value) == f"method.{name}={shown}: valid are {WORDS[name]}"


def test_an_object_is_checked_as_a_file_is():
    with pytest.raises(ValueError, match=r"^count=0: valid are whole numbers from 1$"):
        Leaf(count=0)


def test_a_dataclass_of_its_own_is_checked_too():
    @dataclass
    class Own:
        size: int = setting(2, at_least=1)

    check_ranges(Own())
    with pytest.raises(ValueError, match=r"^size=-1: valid are whole numbers from 1$"):
        check_ranges(Own(size=-1))


def test_a_setting_that_is_gone_is_named():
    @dataclass(frozen=True, kw_only=True)
    class Shrunk(Base):
        removed = ("unit",)

    with pytest.raises(UsageError, match=r"^method\.unit: earlier versions had this setting.*leave it out$"):
        build_config(Shrunk, {"unit": "sample"}, "method.")
    with pytest.raises(UsageError, match=r"unknown setting 'method\.unit'"):
        build_config(Base, {"unit": "sample"}, "method.")
