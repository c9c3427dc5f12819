import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config, to_tree
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import STEPS
from hpcule.victim.recipe import Recipe


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"epochs": 0}, "victim.epochs=0: valid are whole numbers from 1"),
        ({"batch": 0}, "victim.batch=0: valid are whole numbers from 1"),
        ({"learning_rate": 0}, "victim.learning_rate=0: valid are numbers above 0"),
        ({"weight_decay": -1e-4}, "victim.weight_decay=-0.0001: valid are numbers from 0"),
        ({"warmup_epochs": -1}, "victim.warmup_epochs=-1: valid are numbers from 0"),
        ({"steps": 0}, "victim.steps=0: valid are whole numbers from 1"),
        ({"evaluate_every": 0, "target": 0.5}, "victim.evaluate_every=0: valid are whole numbers from 1"),
        ({"evaluate_every": 5}, "victim.evaluate_every looks for a target: set victim.target too"),
        ({"target": 0}, "victim.target=0: valid are numbers above 0 up to 1"),
        ({"target": 70}, "victim.target=70: valid are numbers above 0 up to 1"),
        ({"micro_batch": 3}, "victim.micro_batch=3: valid are whole numbers from 4"),
        ({"optimizer": "adamw"}, "victim.optimizer=adamw: valid are sgd, adam, lars, lamb"),
        ({"optimizer": "adam", "momentum": 1}, "victim.momentum must be below 1 for adam"),
        ({"batch_norm": "ghost"}, "victim.batch_norm=ghost: valid are local, synchronised"),
        ({"engine": "fsdp"}, "victim.engine=fsdp: valid are ddp, deepspeed"),
        ({"zero": 4}, "victim.zero=4: valid are 0, 1, 2, 3"),
        ({"clip_norm": 0}, "victim.clip_norm=0: valid are numbers above 0"),
        ({"offload": "optimizer"}, "victim.offload=optimizer needs engine=deepspeed and zero=1 or more"),
        (
            {"engine": "deepspeed", "zero": 2, "offload": "parameters"},
            "victim.offload=parameters needs engine=deepspeed and zero=3",
        ),
        ({"precision": "bf16-weights"}, "victim.precision=bf16-weights needs engine=deepspeed and zero=2 or more"),
        (
            {"engine": "deepspeed", "optimizer": "lamb"},
            "victim.zero=1 cuts tensors apart, and lamb needs them whole: use zero=0",
        ),
        ({"augment": "crop-flip"}, "victim.augment=crop-flip: write victim.countermeasures=[crop-flip]"),
        ({"augment": "none"}, "victim.augment=none: write victim.countermeasures=[plain]"),
        (
            {"countermeasures": ["crop-flip@vgg16"]},
            "victim.countermeasures: crop-flip@vgg16: the network is a setting of",
        ),
        ({"countermeasures": ["plain", "jpeg"]}, "victim.countermeasures: plain means no step, and goes with no other"),
        ({"countermeasures": {"jpeg": 10}}, "expected a list of steps, for example [crop-flip, jpeg-10]"),
        ({"countermeasures": ["dfr", "mix-0.5"]}, "either mixes clean samples in, or fits its last layer to them"),
        ({"label_smoothing": 1}, "victim.label_smoothing=1: valid are numbers from 0 and below 1"),
        ({"optimizer": "adam", "nesterov": True}, "victim.nesterov and average_weights need optimizer=sgd"),
        ({"optimizer": "lamb", "average_weights": True}, "victim.nesterov and average_weights need optimizer=sgd"),
        ({"momentum": 0, "nesterov": True}, "victim.nesterov needs momentum above 0"),
        ({"engine": "deepspeed", "average_weights": True}, "victim.average_weights needs engine=ddp"),
        ({"task": "edges", "label_smoothing": 0.1}, "victim.label_smoothing is for the tasks label and rotation"),
        ({"countermeasures": ["fixmatch"], "label_smoothing": 0.1}, "and goes with no fixmatch"),
        ({"precision": "fp16"}, "victim.precision=fp16: valid are auto, fp32, bf16, bf16-weights"),
        ({"learning_rate": "fast"}, "victim.learning_rate=fast: expected a number"),
        ({"netwrok": "convnet"}, "unknown setting 'victim.netwrok': did you mean 'victim.network'?"),
    ],
)
def test_a_wrong_setting_is_named(tree, message):
    with pytest.raises(UsageError) as caught:
        build_config(VictimConfig, tree, "victim.")
    assert message in str(caught.value)


def test_whole_tensors_suit_every_optimizer():
    build_config(VictimConfig, {"engine": "deepspeed", "optimizer": "lamb", "zero": 0}, "victim.")
    build_config(VictimConfig, {"engine": "ddp", "optimizer": "lamb", "zero": 1}, "victim.")


@pytest.mark.parametrize("text", ["plain", "crop-flip", "crop-flip+cutout", "jpeg-10+mix-0.25", "blur-0.5+dfr", *STEPS])
def test_countermeasures_take_every_step_of_recipes_and_mean_the_same(text):
    text = {
        "mix": "mix-0.5",
        "test-too": "jpeg+test-too",
        "freeze": "fine-tune+freeze",
        "adapters": "fine-tune+adapters",
    }.get(text, text)
    listed, joined = (
        build_config(VictimConfig, {"countermeasures": value}, "victim.").countermeasures
        for value in (text.split("+"), text)
    )
    assert listed == joined == Recipe.parse(f"{text}@resnet18").countermeasures
    tree = to_tree(VictimConfig(countermeasures=listed))
    assert build_config(VictimConfig, tree, "victim.").countermeasures == listed
    assert isinstance(tree["countermeasures"], list)


def test_countermeasures_are_known_by_name():
    build_config(VictimConfig, {"countermeasures": ["jpeg-10", "cutout"]}, "victim.")
    with pytest.raises(UsageError, match=r"victim.countermeasures: unknown step 'jpg-10': did you mean 'jpeg'"):
        build_config(VictimConfig, {"countermeasures": ["jpg-10"]}, "victim.")
