import pytest

from hpcule.config.errors import HpculeError, UsageError
from hpcule.config.plain_yaml import YamlError, parse_yaml
from hpcule.config.tree import load_yaml

LAUGHS = "a: &a [x, x]\n" + "".join(f"{new}: &{new} [*{old}, *{old}]\n" for old, new in zip("abcdefgh", "bcdefghi"))  # noqa: B905


@pytest.mark.parametrize(
    ("text", "value"),
    [("a: 1\nb: [x, 2.5, null]", {"a": 1, "b": ["x", 2.5, None]}), ("", None), ("3", 3), ("[" * 40 + "]" * 40, None)],
)
def test_plain_values(text, value):
    found = parse_yaml(text)
    assert found == value or text.startswith("[[")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2", " in line 2: 'a' stands there twice"),
        ("b:\n  a: 1\n  a: 2", " in line 3: 'a' stands there twice"),
        (LAUGHS, " in line 2: *a stands for something else"),
        ("a: &a [*a]", "stands for something else"),
        ("[" * 5000, " in line 1: nested deeper than 40 times"),
        ("a: " + "9" * 10_000, ": Exceeds the limit"),
        ("a: 2024-13-45", ": month must be in 1..12"),
        ("a: !!python/object/apply:os.getcwd []", "could not determine a constructor"),
        ("a: \x00", ": unreadable characters"),
        ("a: '" + "x" * (1 << 20) + "'", ": more than 1048576 characters"),
        ("[1]: 2", "found unhashable key"),
    ],
)
def test_what_is_refused(text, message):
    with pytest.raises(YamlError) as caught:
        parse_yaml(text)
    assert message in str(caught.value)


def test_the_file_is_named(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("a: 1\na: 2")
    with pytest.raises(UsageError, match=r"file\.yaml is not valid YAML in line 2: 'a' stands there twice"):
        load_yaml(path)


def test_messages_stay_on_one_line():
    assert str(HpculeError("folder a\nb\x1b[31m\udcff cannot, é can")) == r"folder a\nb\x1b[31m\udcff cannot, é can"
