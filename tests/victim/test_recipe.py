from __future__ import annotations

import pytest

from hpcule.config.errors import UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import COUNTERMEASURES, Applied, Countermeasures, countermeasure
from hpcule.victim.recipe import Recipe


def steps_of(*named, network=None):
    """The recipe of steps written as (name, strength)."""
    return Recipe(Countermeasures(tuple(Applied(name, strength) for name, strength in named)), network)


@pytest.mark.parametrize(
    ("text", "expected", "title"),
    [
        ("plain", steps_of(), "no augmentation"),
        ("crop-flip", steps_of(("crop-flip", None)), "random crop and flip"),
        ("jpeg-10", steps_of(("jpeg", 10)), "JPEG at quality 10"),
        ("bit-depth", steps_of(("bit-depth", 2)), "2 bits a value"),
        (
            "crop-flip+grayscale+cutout-25",
            steps_of(("crop-flip", None), ("grayscale", None), ("cutout", 25)),
            "random crop and flip, grayscale, cutout of 25% of the width",
        ),
        (
            "jpeg-10+simclr-20",
            steps_of(("jpeg", 10), ("simclr", 20)),
            "JPEG at quality 10, features by SimCLR in 20 epochs",
        ),
        (
            "jpeg-50+test-too+size-160",
            steps_of(("jpeg", 50), ("test-too", None), ("size", 160)),
            "JPEG at quality 50, test images as well, read at 160 x 160 pixels",
        ),
        ("plain@vgg16", steps_of(network="vgg16"), "no augmentation, network vgg16"),
        ("jpeg-10@vit", steps_of(("jpeg", 10), network="vit"), "JPEG at quality 10, network vit"),
        ("mix-0.5", steps_of(("mix", 0.5)), "50% protected, the rest clean"),
        ("mixup+mix-0.9", steps_of(("mixup", None), ("mix", 0.9)), "mixup, 90% protected, the rest clean"),
    ],
)
def test_recipes_are_steps_joined_with_plus(text, expected, title):
    found = Recipe.parse(text)
    assert found == expected
    assert found.title == title
    assert found.written() == text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("greyscale", "recipe greyscale: unknown step 'greyscale': did you mean 'grayscale'"),
        ("plain+jpeg", "plain means no step, and goes with no other"),
        ("jpeg-0", "a whole number of 1 to 100, as in jpeg-10"),
        ("jpeg-9.5", "a whole number"),
        ("blur-0.1", "a number of 0.3 to 10, as in blur-1"),
        ("grayscale-2", "grayscale has no strength"),
        ("mix", "mix-0.5 has half"),
        ("mix-1", "between 0 and 1"),
        ("jpeg-10+jpeg-50", "twice"),
        ("plain@vgg", "recipe plain@vgg: unknown network 'vgg': did you mean 'vgg16'"),
        ("@vgg16", "unknown step"),
        ("simclr-0", "a whole number of 1 to 2000, as in simclr-100"),
        ("crop-flip+simclr", "simclr with crop-flip: such a victim draws views of its own"),
        ("fixmatch+mixup", "fixmatch with mixup"),
        ("fixmatch-0", "a whole number of 1 to 100000, as in fixmatch-25"),
        ("dfr+mix-0.5", "either mixes clean samples in, or fits its last layer to them"),
        ("fine-tune", "say which trained network, as in fine-tune@efficientnet-lite0"),
        ("linear-probe@vgg16", "unknown network 'vgg16'.* resnet50"),
        ("plain@efficientnet-lite0", "unknown network 'efficientnet-lite0'"),
        (
            "moco+cutout+jpeg-10",
            "moco with cutout: .* it goes with window, .*, jpeg, .*, size, test-too, and mix-0.5",
        ),
        ("simclr+byol", "simclr with byol"),
        ("test-too", "test images go through all steps that they can go through anyway; .* as in jpeg-50"),
        ("wiener+size-64+test-too", "test images go through all steps that they can go through anyway"),
        ("freeze-50@resnet18", "freeze goes with trained weights, as in fine-tune"),
        ("adapters@resnet18", "adapters goes with trained weights, as in fine-tune"),
        ("fine-tune+freeze+adapters@resnet18", "adapters freeze all trained tensors; leave freeze or adapters out"),
        ("jpeg-50+window-1", "window-1 displays stored values, so it comes before all other steps"),
        ("lung-window+window-1", "and there is one such step"),
        ("window-50", "a number of 0 to 49, as in window-0.5"),
        ("bone-window-3", "bone-window has no strength"),
        ("size-8", "a whole number of 16 to 1024, as in size-64"),
        ("", "unknown step"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_is_valid(text, message):
    with pytest.raises(UsageError, match=message):
        Recipe.parse(text)


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_every_countermeasure_has_a_default_strength_in_its_range(name):
    step, kind = countermeasure(name), COUNTERMEASURES[name]
    assert step.strength == kind.default
    assert "{" not in step.title
    if kind.default is not None:
        assert kind.lowest <= kind.default <= kind.highest


def test_a_victims_settings_follow_its_recipe():
    config = VictimConfig(batch=64, countermeasures=Countermeasures.parse("mixup"))
    squeezed = VictimConfig(batch=64, countermeasures=Countermeasures.parse(["crop-flip", "jpeg-20"]))
    assert Recipe.parse("crop-flip+jpeg-20").applied(config) == squeezed
    assert Recipe.parse("plain").applied(config) == VictimConfig(batch=64)
    assert Recipe.parse("plain@vgg16").applied(config) == VictimConfig(batch=64, network="vgg16")
    vit = Recipe.parse("jpeg-20@vit").applied(config)
    tuned = Recipe.parse("crop-flip+fine-tune@resnet18").applied(config)
    assert (tuned.network, tuned.learning_rate, str(tuned.countermeasures)) == ("resnet18", 0.01, "crop-flip+fine-tune")
    assert (vit.network, vit.optimizer, vit.learning_rate, str(vit.countermeasures)) == ("vit", "adam", 5e-4, "jpeg-20")


@pytest.mark.parametrize(
    ("text", "network", "schedule", "rate", "task"),
    [
        ("speed", "fast", "triangular", 0.16, "label"),
        ("speed+jpeg-10", "fast", "triangular", 0.16, "label"),
        ("plain@fast", "fast", "triangular", 0.16, "label"),
        ("rotation:speed", "fast", "triangular", 0.16, "rotation"),
        ("labels:speed", "fast", "triangular", 0.16, "labels"),
        ("fixmatch@fast", "fast", "triangular", 0.16, "label"),
        # Another network keeps its own settings.
        ("speed@resnet18", "resnet18", "cosine", 0.1, "label"),
        ("segmentation:speed", "resnet-small", "cosine", 1e-3, "segmentation"),
    ],
)
def test_the_fast_network_has_settings_of_its_own(text, network, schedule, rate, task):
    found = Recipe.parse(text).applied(VictimConfig(batch=64))
    assert (found.network, found.schedule, found.learning_rate, found.task) == (network, schedule, rate, task)
    assert found.batch == 64
    assert found.label_smoothing == (0.2 if network == "fast" and task != "labels" and "fixmatch" not in text else 0)


def test_what_is_published_of_a_thiefs_samples():
    shares = {text: Recipe.parse(text).share for text in ("plain", "mix-0.2", "dfr", "crop-flip+dfr-25")}
    assert shares == {"plain": None, "mix-0.2": 0.2, "dfr": 0.9, "crop-flip+dfr-25": 0.75}


def test_a_clean_control_knows_no_mixture():
    for text, whole in [
        ("mix-0.5", "plain"),
        ("crop-flip+mix-0.5+jpeg-10", "crop-flip+jpeg-10"),
        ("mixup", "mixup"),
        ("mix-0.5@vgg16", "plain@vgg16"),
        ("crop-flip@vit", "crop-flip@vit"),
    ]:
        assert Recipe.parse(text).whole == Recipe.parse(whole)
        assert Recipe.parse(text).whole.name == whole


def test_two_spellings_are_one_recipe():
    one, other = Recipe.parse("bit-depth"), Recipe.parse("bit-depth-2.0")
    assert one == other
    assert (one.name, str(other.countermeasures)) == ("bit-depth", "bit-depth-2")
    for text in ("mix-0.00001", "blur-1.23456789", "fixmatch-100000"):
        assert str(Countermeasures.parse(text)) == text


def test_ueraser_is_adversarial_early_or_throughout():
    lite, standard, most = (countermeasure(name) for name in ("ueraser-lite", "ueraser", "ueraser-max"))
    assert [lite.versions(progress) for progress in (0, 0.9)] == [1, 1]
    assert [standard.versions(progress) for progress in (0, 0.24, 0.25, 0.9)] == [5, 5, 1, 1]
    assert [most.versions(progress) for progress in (0, 0.9)] == [5, 5]


def test_a_task_stands_before_the_steps():
    recipe = Recipe.parse("segmentation:crop-flip+jpeg-50@unet-small")
    assert (recipe.task, recipe.network) == ("segmentation", "unet-small")
    assert str(recipe.countermeasures) == "crop-flip+jpeg-50"
    config = recipe.applied(VictimConfig())
    assert (config.task, config.pixel_network, config.network) == ("segmentation", "unet-small", VictimConfig().network)
    assert (config.optimizer, config.learning_rate) == ("adam", 1e-3)
    assert recipe.title.startswith("segmentation, random crop and flip")
    assert recipe.whole == recipe
    assert Recipe.parse("crop-flip") != Recipe.parse("rotation:crop-flip")


def test_a_recipe_is_asked_for_another_task():
    assert Recipe.parse("crop-flip@vgg16").asking("labels") == Recipe.parse("labels:crop-flip@vgg16")
    assert Recipe.parse("labels:crop-flip").asking("edges") == Recipe.parse("edges:crop-flip")
    assert Recipe.parse("plain").asking("label").applied(VictimConfig()).task == "label"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("segmentatoin:plain", "did you mean 'segmentation'"),
        ("segmentation:plain@vgg16", "Valid: unet, unet-small"),
        ("labels:linear-probe@efficientnet-lite0", "needs one label of each sample, and the task is labels"),
        ("edges:crop-flip+cutmix", "the task is edges"),
    ],
)
def test_recipes_that_do_not_go_with_their_task(text, message):
    with pytest.raises(UsageError, match=message):
        Recipe.parse(text)
