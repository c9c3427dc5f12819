import pytest
from toys import ToySource

from hpcule.config.errors import UsageError
from hpcule.craft.strength import STRENGTHS, epsilon
from hpcule.craft.table import METHODS


@pytest.mark.parametrize(
    ("name", "dtype", "expected"),
    [
        ("pil", "uint8", [4, 8, 16]),
        ("uc", "uint8", [4, 8, 16]),
        ("em", "uint16", [1028, 2056, 4112]),
        # 6 and 4.6 levels root mean square in 192 values.
        ("lsp", "uint8", [41.57, 83.14, 166.28]),
        ("ar", "uint8", [31.87, 63.74, 127.48]),
        ("lsp", "uint16", [257 * 41.57, 257 * 83.14, 257 * 166.28]),
    ],
)
def test_a_strength_is_a_share_of_the_grid(name, dtype, expected):
    source = ToySource(dtype=dtype)
    assert [epsilon(strength, name, source) for strength in STRENGTHS] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["cuda", "ops", "poscuda"])
def test_a_method_without_epsilon_says_where_its_settings_stand(name):
    with pytest.raises(UsageError, match=f"{name} has no epsilon .* docs/methods/{name}.md"):
        epsilon("standard", name, ToySource())


def test_every_other_method_has_strengths():
    for name in METHODS.keys() - {"cuda", "ops", "poscuda"}:
        assert epsilon("standard", name, ToySource()) > 0
