from __future__ import annotations

import pytest

from hpcule.config.errors import UsageError
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.table import COUNTERMEASURES, countermeasure
from hpcule.victim.recipe import Recipe, read_recipe, with_recipe, without_mixture


@pytest.mark.parametrize(
    ("text", "expected", "title"),
    [
        ("plain", Recipe(False, (), None), "no augmentation"),
        ("crop-flip", Recipe(True, (), None), "random crop and flip"),
        ("jpeg-10", Recipe(False, ("jpeg-10",), None), "JPEG at quality 10"),
        ("bit-depth", Recipe(False, ("bit-depth",), None), "2 bits a value"),
        (
            "crop-flip+grayscale+cutout-25",
            Recipe(True, ("grayscale", "cutout-25"), None),
            "random crop and flip, grayscale, cutout of 25% of the width",
        ),
        (
            "jpeg-10+simclr-20",
            Recipe(False, ("jpeg-10", "simclr-20"), None),
            "JPEG at quality 10, features by SimCLR in 20 epochs",
        ),
        ("plain@vgg16", Recipe(False, (), None, "vgg16"), "no augmentation, network vgg16"),
        ("jpeg-10@vit", Recipe(False, ("jpeg-10",), None, "vit"), "JPEG at quality 10, network vit"),
        ("mix-0.5", Recipe(False, (), 0.5), "50% protected, the rest clean"),
        ("mixup+mix-0.9", Recipe(False, ("mixup",), 0.9), "mixup, 90% protected, the rest clean"),
    ],
)
def test_recipes_are_steps_joined_with_plus(text, expected, title):
    assert read_recipe(text) == expected
    assert expected.title == title


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("greyscale", "unknown step of a recipe 'greyscale': did you mean 'grayscale'"),
        ("plain+jpeg", "unknown step of a recipe 'plain'"),
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
        ("dfr+mix-0.5", "either mixes clean samples in, or fits the last layer to them"),
        ("fine-tune", "say which trained network, as in fine-tune@efficientnet-lite0"),
        ("linear-probe@vgg16", "unknown network 'vgg16'.* resnet50"),
        ("plain@efficientnet-lite0", "unknown network 'efficientnet-lite0'"),
        (
            "moco+cutout+jpeg-10",
            "moco with cutout: .* there may be grayscale, jpeg, bit-depth, blur, diffusion, rebuild, and mix-0.5",
        ),
        ("simclr+byol", "simclr with byol"),
        ("", "unknown step"),
    ],
)
def test_what_cannot_be_read_is_refused_with_what_is_valid(text, message):
    with pytest.raises(UsageError, match=message):
        read_recipe(text)


@pytest.mark.parametrize("name", COUNTERMEASURES)
def test_every_countermeasure_has_a_default_strength_in_its_range(name):
    step, kind = countermeasure(name), COUNTERMEASURES[name]
    assert step.strength == kind.default
    assert "{" not in step.title
    if kind.default is not None:
        assert kind.lowest <= kind.default <= kind.highest


def test_a_victims_settings_follow_its_recipe():
    config = VictimConfig(batch=64, countermeasures=("mixup",))
    assert with_recipe(config, "crop-flip+jpeg-20") == VictimConfig(
        batch=64, augment="crop-flip", countermeasures=("jpeg-20",)
    )
    assert with_recipe(config, "plain").countermeasures == ()
    assert with_recipe(config, "plain@vgg16") == VictimConfig(batch=64, network="vgg16")
    vit = with_recipe(config, "jpeg-20@vit")
    tuned = with_recipe(config, "crop-flip+fine-tune@resnet18")
    assert (tuned.network, tuned.learning_rate, tuned.countermeasures) == ("resnet18", 0.01, ("fine-tune",))
    assert (vit.network, vit.optimizer, vit.learning_rate, vit.countermeasures) == ("vit", "adam", 5e-4, ("jpeg-20",))


def test_what_is_published_of_a_thiefs_samples():
    shares = {text: read_recipe(text).share for text in ("plain", "mix-0.2", "dfr", "crop-flip+dfr-25")}
    assert shares == {"plain": None, "mix-0.2": 0.2, "dfr": 0.9, "crop-flip+dfr-25": 0.75}


def test_a_clean_control_knows_no_mixture():
    assert without_mixture("mix-0.5") == "plain"
    assert without_mixture("crop-flip+mix-0.5+jpeg") == "crop-flip+jpeg"
    assert without_mixture("mixup") == "mixup"
    assert without_mixture("mix-0.5@vgg16") == "plain@vgg16"
    assert without_mixture("crop-flip@vit") == "crop-flip@vit"


def test_ueraser_is_adversarial_early_or_throughout():
    lite, standard, most = (countermeasure(name) for name in ("ueraser-lite", "ueraser", "ueraser-max"))
    assert [lite.versions(progress) for progress in (0, 0.9)] == [1, 1]
    assert [standard.versions(progress) for progress in (0, 0.24, 0.25, 0.9)] == [5, 5, 1, 1]
    assert [most.versions(progress) for progress in (0, 0.9)] == [5, 5]
