import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build
from hpcule.victim.config import RECIPES, VictimConfig, check_recipes


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"epochs": 0}, "victim.epochs and batch must be at least 1"),
        ({"batch": 0}, "victim.epochs and batch must be at least 1"),
        ({"learning_rate": 0}, "victim.learning_rate must be above 0"),
        ({"weight_decay": -1e-4}, "weight_decay at least 0"),
        ({"augment": "mixup"}, "victim.augment=mixup: valid are none, crop-flip"),
        ({"precision": "fp16"}, "victim.precision=fp16: valid are auto, fp32, bf16"),
        ({"learning_rate": "fast"}, "victim.learning_rate=fast: expected a number"),
        ({"netwrok": "convnet"}, "unknown setting 'victim.netwrok': did you mean 'victim.network'?"),
    ],
)
def test_a_wrong_setting_is_named(tree, message):
    with pytest.raises(UsageError) as caught:
        build(VictimConfig, tree, "victim.")
    assert message in str(caught.value)


def test_recipes_are_known_by_name():
    check_recipes(tuple(RECIPES))
    with pytest.raises(UsageError, match="unknown recipe 'crop-flop': did you mean 'crop-flip'"):
        check_recipes(("plain", "crop-flop"))
