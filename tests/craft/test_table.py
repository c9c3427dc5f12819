import dataclasses

import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config, merged, to_tree
from hpcule.craft.survey import describe
from hpcule.craft.table import METHODS, configure, find


def configured(name="pil", preset=None, file=None, overrides=()):
    return configure(name, "digits", preset=preset, file=file or {}, overrides=list(overrides))


def test_the_defaults_are_the_papers():
    pil = configured("pil")
    assert (pil.preset, pil.seed, pil.data) == ("paper", 0, "digits")
    assert (pil.method.epsilon, pil.method.epochs, pil.method.steps) == (8, 30, 30)
    assert (pil.method.batch, pil.method.learning_rate, pil.method.momentum, pil.method.mix) == (512, 0.003, 0.9, 0.9)
    em = configured("em").method
    assert (em.surrogate, em.epsilon, em.unit, em.noise_steps, em.step_size) == ("resnet18", 8, "sample", 20, 0.8)
    assert (em.learning_rate, em.momentum, em.weight_decay, em.stop_error) == (0.1, 0.9, 5e-4, 0.01)
    uc = configured("uc").method
    assert (uc.epsilon, uc.clusters, uc.epochs, uc.batch, uc.learning_rate) == (16, 10, 50, 256, 1e-4)
    assert (uc.target_offset, uc.fit_on, uc.weight_decay) == (1, "all", 5e-4)


def test_overrides_beat_the_file_which_beats_the_preset_which_beats_the_defaults():
    assert configured(preset="small").method.epochs == 10
    assert configured(preset="small", file={"method": {"epochs": 11}}).method.epochs == 11
    both = configured(preset="small", file={"method": {"epochs": 11}, "seed": 3}, overrides=["method.epochs=12"])
    assert (both.method.epochs, both.method.steps, both.seed) == (12, 30, 3)


def test_the_preset_may_stand_in_the_file_and_the_option_beats_it():
    assert configured(file={"preset": "smoke"}).method.epochs == 5
    assert configured(file={"preset": "smoke"}, preset="small").preset == "small"


def test_one_delta_a_class_has_its_own_default_of_steps():
    assert configured("em", overrides=["method.unit=class"]).method.noise_steps == 1
    assert configured("em", overrides=["method.unit=class", "method.noise_steps=3"]).method.noise_steps == 3
    assert configured("em", overrides=["method.epsilon=16"]).method.step_size == pytest.approx(1.6)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("preset", ["paper", "small", "smoke"])
def test_a_resolved_configuration_gives_itself_again(name, preset):
    config = configured(name, preset)
    again = configured(name, file={key: value for key, value in to_tree(config).items() if key != "data"})
    assert again == config
    assert config.preset == preset


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "pill"}, "unknown method 'pill': did you mean 'pil'? Valid: em, pil, uc, aue"),
        ({"file": {"preset": "tiny"}}, "unknown preset 'tiny'"),
        ({"overrides": ["method.epoch=3"]}, "unknown setting 'method.epoch': did you mean 'method.epochs'?"),
        ({"overrides": ["method.surrogate=resnet18"]}, "unknown setting 'method.surrogate'"),
        ({"overrides": ["sed=3"]}, "unknown setting 'sed': did you mean 'seed'?"),
        ({"overrides": ["method.epsilon=0"]}, "method.epsilon=0: valid are 1 to 127"),
        ({"overrides": ["method.epsilon=40000"]}, "method.epsilon=40000: valid are 1 to 127"),
        ({"overrides": ["method.mix=1.5"]}, "method.mix=1.5: valid are numbers from 0 up to 1"),
        ({"overrides": ["method.ghost=0"]}, "method.ghost=0: valid are whole numbers from 1"),
        ({"name": "em", "overrides": ["method.unit=cluster"]}, "method.unit=cluster: valid are sample, class"),
        ({"name": "em", "overrides": ["method.subset=0"]}, "method.subset=0: valid are numbers above 0 up to 1"),
        ({"name": "em", "overrides": ["method.ghost=0"]}, "method.ghost=0: valid are whole numbers from 1"),
        (
            {"name": "em", "overrides": ["method.learning_rate=-1"]},
            "learning_rate=-1: valid are numbers above 0",
        ),
        ({"name": "em", "overrides": ["method.step_size=0"]}, "method.step_size=0: valid are numbers above 0"),
        ({"name": "em", "overrides": ["method.noise_steps=0"]}, "noise_steps=0: valid are whole numbers from 1"),
        (
            {"name": "em", "overrides": ["method.noise_steps=-1"]},
            "noise_steps=-1: valid are whole numbers from 1",
        ),
        ({"name": "uc", "overrides": ["method.clusters=1"]}, "method.clusters=1: valid are whole numbers from 2"),
        ({"name": "uc", "overrides": ["method.target_offset=20"]}, "method.target_offset=20"),
        (
            {"name": "uc", "overrides": ["method.encoder_size=8"]},
            "encoder_size=8: valid are whole numbers from 32",
        ),
        ({"name": "uc", "overrides": ["method.ghost=0"]}, "method.ghost=0: valid are whole numbers from 1"),
        ({"name": "uc", "overrides": ["method.batch=0"]}, "method.batch=0: valid are whole numbers from 1"),
        ({"name": "uc", "overrides": ["method.steps=-1"]}, "method.steps=-1: valid are whole numbers from 0"),
        ({"file": {"method": {"name": "em"}}}, "the configuration is for another method than 'pil'"),
        ({"file": {"method": "pil"}}, "the configuration is for another method than 'pil'"),
        ({"file": {"method": None}}, "the configuration is for another method than 'pil'"),
        ({"overrides": ["method.name=uc"]}, "the configuration is for another method than 'pil'"),
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    with pytest.raises(UsageError) as caught:
        configured(**arguments)
    assert message in str(caught.value)


def test_every_method_tells_the_facts_of_the_survey():
    rows, broken = describe()
    assert broken == []
    assert [row["name"] for row in rows] == list(METHODS)
    for row in rows:
        for name in ("data", "task", "intent", "claimed", "title", "paper", "cost", "weaknesses"):
            assert isinstance(row[name], str)
            assert row[name]
        for name in ("needs_labels", "bounded", "needs_surrogate", "needs_checkpoint"):
            assert isinstance(row[name], bool)
    needs = {row["name"]: (row["needs_labels"], row["needs_checkpoint"]) for row in rows}
    assert {name for name, (labels, _) in needs.items() if not labels} == {"uc", "cp"}
    assert {name for name, (_, checkpoint) in needs.items() if checkpoint} == {"uc", "texture-learned", "bait"}


@pytest.mark.parametrize("name", METHODS)
def test_a_secret_seed_is_none_that_everybody_knows(name):
    assert find(name).seed_is_secret() or find(name).facts.needs_surrogate
    assert configured(name).seed == (None if find(name).seed_is_secret() else 0)
    assert configured(name, overrides=["seed=3"]).seed == 3


@pytest.mark.parametrize("name", METHODS)
def test_a_method_goes_by_one_name(name):
    method = find(name)
    assert build_config(method.config_class, {}).name == name
    assert set(method.presets) == {"small", "smoke"}
    fields = {field.name for field in dataclasses.fields(method.config_class)}
    assert set(merged(*method.presets.values())) <= fields
