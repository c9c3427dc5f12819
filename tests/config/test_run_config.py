import pytest

from hpcule.config.errors import UsageError
from hpcule.config.run import BoundedConfig, LengthConfig, MethodConfig
from hpcule.config.tree import build_config, dump_yaml, load_yaml, to_tree
from hpcule.craft.config import CraftConfig


def craft_tree(**settings):
    return {"data": "digits", "method": {"name": "any"}, **settings}


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"method": {}}, "missing setting method.name"),
        ({"seed": -1}, "seed=-1: valid are"),
        ({"seed": 2**63}, f"seed={2**63}: valid are"),
        ({"image_size": 3}, "image_size=3: valid are 4 to 4096"),
        ({"precision": "fp16"}, "precision=fp16: valid are auto, fp32, bf16"),
        ({"world": {"threads": 0}}, "world.threads=0: valid are whole numbers from 1"),
        ({"world": {"timeout_seconds": 0}}, "world.timeout_seconds=0: valid are numbers above 0"),
        ({"world": {"devise": "cpu"}}, "unknown setting 'world.devise': did you mean 'world.device'?"),
        ({"store": {"compression": "zip"}}, "store.compression=zip: valid are gzip, lzf"),
        ({"determinstic": True}, "unknown setting 'determinstic': did you mean 'deterministic'?"),
    ],
)
def test_a_wrong_setting_is_named_with_its_path(tree, message):
    with pytest.raises(UsageError) as caught:
        build_config(CraftConfig, craft_tree(**tree))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "epsilon", "message"),
    [
        (BoundedConfig, 0, "method.epsilon=0: valid are 1 to 127 levels"),
        (BoundedConfig, 40000, "method.epsilon=40000: valid are 1 to 127 levels"),
        (BoundedConfig, -8, "method.epsilon=-8"),
        (LengthConfig, 0.5, "method.epsilon=0.5: valid are at least 1 level"),
        (MethodConfig, 8, "unknown setting 'method.epsilon'"),
    ],
)
def test_a_wrong_budget_is_named(kind, epsilon, message):
    with pytest.raises(UsageError) as caught:
        build_config(kind, {"name": "any", "epsilon": epsilon}, "method.")
    assert message in str(caught.value)


def test_the_ends_of_the_budget_are_valid():
    for epsilon in (1, 127):
        assert build_config(BoundedConfig, {"name": "any", "epsilon": epsilon}).epsilon == epsilon
    assert build_config(LengthConfig, {"name": "any"}).epsilon is None


def test_a_run_survives_yaml(tmp_path):
    config = build_config(
        CraftConfig, craft_tree(seed=2**63 - 1, image_size=32, world={"threads": 1}, store={"shards": 5})
    )
    path = tmp_path / "config.yaml"
    path.write_text(dump_yaml(to_tree(config)))
    assert build_config(CraftConfig, load_yaml(path)) == config
    assert isinstance(config.method, MethodConfig)
