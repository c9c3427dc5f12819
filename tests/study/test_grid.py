import pytest

from hpcule.config.errors import UsageError
from hpcule.config.tree import build_config
from hpcule.evaluation.candidates import RecommendConfig
from hpcule.evaluation.suites import EvaluateConfig
from hpcule.study.config import StudyConfig
from hpcule.study.grid import StudySamples, expand, find_item
from hpcule.victim.config import VictimConfig
from hpcule.victim.single import TrainConfig

SAMPLES = {"digits": StudySamples(1437, training="a", test="b")}
BATCHES = {"craft.method.batch": [32, 64], "victim.batch": [16, 48]}


def study(**settings):
    return build_config(StudyConfig, {"name": "toy", "data": "digits", "preset": "smoke", "seeds": [0, 1], **settings})


def test_all_combinations_are_cells_and_share_what_they_can():
    grid = expand(study(factors=BATCHES), SAMPLES)
    assert len(grid.cells) == 2 * 2 * 2
    trained = [craft for craft in grid.crafts.values() if craft.config.method.steps != 0]
    untrained = [craft for craft in grid.crafts.values() if craft.config.method.steps == 0]
    assert len(trained) == 2 * 2, "a craft for each craft batch and seed, whatever the victims' batch"
    assert len(untrained) == 2, "a control for each seed, whatever the craft batch"
    count = {role: sum(v.job.kind == role for v in grid.victims.values()) for role in ("protected", "clean", "noise")}
    assert count == {"protected": 8, "clean": 4, "noise": 4}


def test_the_two_batches_are_never_tied():
    pairs = {(cell.factors["craft.method.batch"], cell.factors["victim.batch"]) for cell in expand_toy().cells}
    assert pairs == {(32, 16), (32, 48), (64, 16), (64, 48)}


def expand_toy():
    return expand(study(factors=BATCHES), SAMPLES)


def test_a_cells_settings_are_those_of_its_factors():
    grid = expand_toy()
    for cell in grid.cells:
        craft = grid.crafts[cell.crafts[0]].config
        victim = grid.victims[cell.victims["protected"]]
        assert craft.method.batch == cell.factors["craft.method.batch"]
        assert victim.job.config.batch == cell.factors["victim.batch"]
        assert craft.seed == victim.job.seed == cell.factors["seed"]
        assert victim.crafts == cell.crafts
        noise = grid.victims[cell.victims["noise"]]
        assert grid.crafts[noise.crafts[0]].config.method.steps == 0
        assert noise.job.config == victim.job.config


VARIANTS = {
    "pil": {"method": "pil"},
    "em by class": {"method": "em", "craft": {"method": {"unit": "class"}}},
    "uc": {"preset": "small"},
    "cuda": {"method": "cuda"},
}


def test_variants_are_methods_with_settings_of_their_own():
    grid = expand(study(variants=VARIANTS, craft={"method": {}, "deterministic": True}, seeds=[0]), SAMPLES)
    crafts = {cell.factors["variant"]: grid.crafts[cell.crafts[0]].config for cell in grid.cells}
    assert list(crafts) == list(VARIANTS)
    assert [craft.method.name for craft in crafts.values()] == ["pil", "em", "uc", "cuda"]
    assert [craft.preset for craft in crafts.values()] == ["smoke", "smoke", "small", "smoke"]
    assert crafts["em by class"].method.unit == "class"
    assert all(craft.deterministic for craft in crafts.values())
    assert sum(victim.job.kind == "clean" for victim in grid.victims.values()) == 1, "one clean control for all"
    noise = {name: cell.victims["noise"] for name, cell in zip(VARIANTS, grid.cells, strict=True)}
    assert len(set(noise.values())) == 4, "shared by sample, class and cluster; without a bound as strong as the delta"


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": {"method": "pill"}}, "unknown method 'pill': did you mean 'pil'?"),
        ({"a": {"methods": "pil"}}, "variants.a.methods: valid are method, preset, craft"),
        ({"a": {"method": "pil", "craft": {"method": {"epoch": 3}}}}, "unknown setting 'method.epoch'"),
    ],
)
def test_a_wrong_variant_is_named(variants, message):
    with pytest.raises(UsageError) as caught:
        expand(study(variants=variants), SAMPLES)
    assert message in str(caught.value)


def test_keys_depend_on_settings_alone():
    first, second = expand_toy(), expand(study(factors=BATCHES, world={"threads": 1}), SAMPLES)
    assert list(first.crafts) == list(second.crafts)
    assert list(first.victims) == list(second.victims)
    other = expand(study(factors=BATCHES, craft={"method": {"epsilon": 4}}), SAMPLES)
    assert not set(first.crafts) & set(other.crafts)


def test_keys_depend_on_the_content_of_the_samples():
    one = expand_toy()
    trained, tested = (
        expand(study(factors=BATCHES), {"digits": StudySamples(1437, **seen)})
        for seen in ({"training": "c", "test": "b"}, {"training": "a", "test": "c"})
    )
    assert not set(one.crafts) & set(trained.crafts)
    assert not set(one.victims) & set(trained.victims)
    assert list(one.crafts) == list(tested.crafts), "crafts do not see the test samples"
    assert not set(one.victims) & set(tested.victims)


TWO = {
    "data": [
        "digits",
        {
            "name": "scans",
            "data": "scans/train",
            "test": "scans/test",
            "craft": {"image_size": 16, "method": {"clusters": 2}},
            "victim": {"epochs": 3},
            "samples": 60,
        },
    ],
    "craft.method.batch": [32, 64],
}
OF_TWO = {**SAMPLES, "scans": StudySamples(100, training="c", test="d")}


def study_of_two(**settings):
    return build_config(StudyConfig, {"name": "two", "preset": "smoke", "victim": {"batch": 50}, **settings})


def test_data_sets_are_a_factor_with_settings_of_their_own():
    grid = expand(study_of_two(factors={"craft.method.batch": [32, 64], **TWO}, seeds=[0]), OF_TWO)
    crafts = [grid.crafts[cell.crafts[0]] for cell in grid.cells]
    assert [cell.factors["data"] for cell in grid.cells] == ["digits", "digits", "scans", "scans"]
    assert [craft.data for craft in crafts] == ["digits", "digits", "scans", "scans"]
    assert [craft.config.data for craft in crafts] == ["digits", "digits", "scans/train", "scans/train"]
    assert [craft.config.image_size for craft in crafts] == [None, None, 16, 16]
    assert [craft.config.method.clusters for craft in crafts] == [4, 4, 2, 2]
    victims = [grid.victims[cell.victims["clean"]] for cell in grid.cells]
    assert [victim.job.config.epochs for victim in victims] == [None, None, 3, 3]
    assert len({victim.key for victim in victims}) == 2, "a clean control for each data set"
    assert "craft uc, scans, batch 64" in crafts[3].title


def test_a_data_set_has_the_keys_that_it_has_alone():
    two = expand(study_of_two(factors=TWO), OF_TWO)
    settings = {"craft": {"image_size": 16, "method": {"clusters": 2}}, "victim": {"batch": 50, "epochs": 3}}
    names = {"data": "scans/train", "test": "scans/test"}
    alone = study_of_two(**names, **settings, samples=60, factors={"craft.method.batch": [32, 64]})
    expected = expand(alone, {"scans/train": OF_TWO["scans"]})
    assert [key for key, craft in two.crafts.items() if craft.data == "scans"] == list(expected.crafts)
    assert [key for key, victim in two.victims.items() if victim.data == "scans"] == list(expected.victims)


def test_a_variants_settings_go_over_those_of_a_data_set():
    variants = {"few": {"craft": {"method": {"clusters": 3}}}, "own": {}}
    grid = expand(study_of_two(factors=TWO, variants=variants, seeds=[0]), OF_TWO)
    clusters = {
        (cell.factors["data"], cell.factors["variant"]): grid.crafts[cell.crafts[0]].config.method.clusters
        for cell in grid.cells
    }
    assert clusters == {("digits", "few"): 3, ("digits", "own"): 4, ("scans", "few"): 3, ("scans", "own"): 2}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"factors": {**TWO, "craft.method.batch": [101]}},
            r"cell 3 \(data=scans, craft.method.batch=101.*craft batch 101 is more than the 100 samples of scans",
        ),
        ({"factors": TWO, "victim": {"batch": 61}}, r"victim batch 61 is more than the 60 samples of scans"),
        ({"factors": TWO, "data": "digits"}, r"data=digits: factors.data names the data sets.*leave it out"),
        ({"factors": TWO, "test": "digits"}, r"test=digits: factors.data names the data sets"),
        ({"factors": {"data": ["a", {"data": "b", "name": "a"}]}}, r"factors.data: a: each once"),
        ({"factors": {"data": [{"data": "a", "tset": "b"}]}}, r"unknown setting 'factors.data.tset'.*data.test"),
        ({"factors": {"data": [{"name": "a"}]}}, r"missing setting factors.data.data"),
        ({"factors": {"data": [{"data": "a", "victim": {"epoch": 3}}]}}, r"'factors.data.victim.epoch'"),
        ({"factors": {"data": [{"data": "a", "craft": {"subset": 3}}]}}, r"craft.subset: all cells"),
        ({"factors": {"data": [{"data": "a", "samples": 0}]}}, r"samples=0: valid are whole numbers from 1"),
        ({}, r"data: name the samples to craft on, or several data sets in factors.data"),
    ],
)
def test_an_impossible_data_set_is_named(settings, message):
    with pytest.raises(UsageError, match=message):
        expand(study_of_two(**settings), OF_TWO)


@pytest.mark.parametrize(("rate", "factor"), [("constant", 1), ("sqrt", 2), ("linear", 4)])
def test_the_learning_rate_follows_the_batch(rate, factor):
    grid = expand(study(factors={"craft.method.batch": [16, 64]}, rates=[rate], seeds=[0]), SAMPLES)
    rates = [grid.crafts[cell.crafts[0]].config.method.learning_rate for cell in grid.cells]
    assert rates[1] == pytest.approx(factor * rates[0])


def test_without_clusters_random_noise_is_made_once_a_seed():
    grid = expand(study(method="pil", factors={"craft.method.batch": [32, 64]}), SAMPLES)
    noise = [victim for victim in grid.victims.values() if victim.job.kind == "noise"]
    assert len(noise) == 2
    assert not any(victim.job.kind == "untrained" for victim in grid.victims.values())


@pytest.mark.parametrize("kind", ["matched", "spectrum"])
def test_noise_that_is_like_the_deltas_belongs_to_each_craft(kind):
    grid = expand(study(factors={"craft.method.batch": [32, 64]}, matched_noise=True, equal_spectrum=True), SAMPLES)
    for cell in grid.cells:
        assert grid.victims[cell.victims[kind]].crafts == cell.crafts
    assert len([victim for victim in grid.victims.values() if victim.job.kind == kind]) == len(grid.cells)


def test_a_batch_of_more_than_half_of_the_samples_is_noted():
    grid = expand(study(factors={"craft.method.batch": [64, 1437], "victim.batch": [719]}), SAMPLES)
    assert grid.notes == [
        "A victim batch of 719 is more than half of the 1437 samples of digits, hardly a random part of them.",
        "A craft batch of 1437 is more than half of the 1437 samples of digits, hardly a random part of them.",
    ]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"factors": {"craft.method.batch": [32, 1438]}},
            r"cell 2 \(craft.method.batch=1438.*craft batch 1438 is more than the 1437 samples",
        ),
        ({"factors": {"victim.batch": [1500]}}, r"victim batch 1500 is more than the 1437 samples"),
        ({"samples": 100, "factors": {"victim.batch": [101]}}, r"victim batch 101 is more than the 100 samples"),
        ({"factors": {"victim.bach": [8]}}, r"cell 0 .*unknown setting 'victim.bach': did you mean 'victim.batch'"),
        ({"factors": {"craft.method.clusters": [1]}}, r"cell 0 .*clusters=1: valid are whole numbers from 2"),
        ({"factors": {"batch": [8]}}, r"factors.batch: a factor is `data`, or a setting below craft. or victim."),
        ({"factors": {"victim.batch": 8}}, r"factors.victim.batch=8: expected a list of values"),
        ({"rates": ["cubic"]}, r"rates=cubic: valid are constant, sqrt, linear, tuned"),
        ({"method": "pil", "rates": ["tuned"]}, r"pil reports no crafting loss to tune by"),
        ({"rate_grid": [1, 0.5, 2]}, r"rate_grid=\[1.0, 0.5, 2.0\]: three or more factors, rising"),
        ({"craft_target": 1.2}, r"craft_target=1.2: valid are numbers above 0 and below 1"),
        ({"seeds": [1, 1]}, r"seeds=\[1, 1\]: at least one, each once"),
        ({"method": "ucc"}, r"unknown method 'ucc': did you mean 'uc'"),
        (
            {"victim_rates": ["linear"]},
            r"victim_rates=\['linear'\]: no batch to scale from; vary victim.batch in factors, or set",
        ),
        ({"victim": {"workers": 0}}, r"victim.workers=0: valid are whole numbers from 1"),
        (
            {"factors": {"victim.workers": [1, 8]}, "victim": {"batch": 15}},
            r"cell 2 \(victim.workers=8.*victim.batch=15 is too small for 8 workers: at least 16",
        ),
        ({"victim_rates": ["tuned"]}, r"victim_rates=tuned: valid are constant, sqrt, linear"),
        ({"victim_rates": []}, r"victim_rates=\[\]: at least one, each once"),
        (
            {"victim_rates": ["sqrt"], "victim_rate_batch": 32, "recipes": ["plain", "simclr-3"]},
            r"cell 2 .*victim_rates: simclr has no learning rate and batch to scale; use constant",
        ),
        (
            {"rates": ["linear"], "factors": {"craft.method.batch": [32, 0]}},
            r"cell 2 .*batch=0: valid are whole numbers from 1",
        ),
    ],
)
def test_an_impossible_cell_is_refused_before_anything_runs(settings, message):
    with pytest.raises(UsageError, match=message):
        expand(study(**settings), SAMPLES)


def test_an_unknown_item_is_refused():
    with pytest.raises(UsageError, match="unknown item 'abc'"):
        find_item(expand_toy(), "abc")


def test_a_tuned_rate_tries_them_all_and_trains_victims_once():
    grid = expand(study(factors={"craft.method.batch": [32, 64]}, rates=["tuned"], rate_grid=[0.5, 1, 3]), SAMPLES)
    assert len(grid.cells) == 2 * 2
    for cell in grid.cells:
        rates = [grid.crafts[key].config.method.learning_rate for key in cell.crafts]
        assert [rate / rates[1] for rate in rates] == pytest.approx([0.5, 1, 3])
        assert grid.victims[cell.victims["protected"]].crafts == cell.crafts
        assert len(grid.victims[cell.victims["noise"]].crafts) == 1
    protected = [victim for victim in grid.victims.values() if victim.job.kind == "protected"]
    assert len(protected) == 2 * 2


def victim_rates(config, kind="protected"):
    """Learning rates of the victims, by their batch and the policy."""
    grid = expand(config, SAMPLES)
    return {
        (cell.factors["victim.batch"], cell.factors["victim_rate"]): victim.job.config.learning_rate
        for cell in grid.cells
        for victim in [grid.victims[cell.victims[kind]]]
    }


SCALED = {"factors": {"victim.batch": [64, 16, 256]}, "victim_rates": ["constant", "sqrt", "linear"], "seeds": [0]}


@pytest.mark.parametrize("kind", ["protected", "clean", "noise"])
def test_the_victims_learning_rate_follows_their_batch(kind):
    found = victim_rates(study(victim={"learning_rate": 0.08}, **SCALED), kind)
    assert {place: pytest.approx(rate) for place, rate in found.items()} == {
        **{(batch, "constant"): 0.08 for batch in (16, 64, 256)},
        **{(16, "sqrt"): 0.08, (64, "sqrt"): 0.16, (256, "sqrt"): 0.32},
        **{(16, "linear"): 0.08, (64, "linear"): 0.32, (256, "linear"): 1.28},
    }


def test_the_victims_rates_have_a_reference_of_their_own():
    found = victim_rates(study(victim={"learning_rate": 0.08}, victim_rate_batch=64, rate_batch=8, **SCALED))
    assert found[16, "linear"] == pytest.approx(0.02)
    assert found[256, "sqrt"] == pytest.approx(0.16)


def test_a_recipes_own_learning_rate_is_scaled_too():
    settings = {**SCALED, "victim_rates": ["linear"], "recipes": ["plain@vit"]}
    found = victim_rates(study(victim={"learning_rate": 0.08}, **settings))
    assert found[64, "linear"] == pytest.approx(4 * 5e-4)


def test_policies_share_the_victims_of_the_batch_that_they_start_from():
    plain = expand(study(factors={"victim.batch": [16, 64]}), SAMPLES)
    scaled = expand(study(factors={"victim.batch": [16, 64]}, victim_rates=["constant", "linear"]), SAMPLES)
    assert set(plain.victims) < set(scaled.victims), "those of constant rates are those of a study without policies"
    assert list(plain.crafts) == list(scaled.crafts)
    assert len(scaled.victims) == len(plain.victims) * 3 // 2
    assert "victim_rate" not in plain.cells[0].factors


def test_a_victim_of_several_workers_is_another_victim_on_the_same_craft():
    one = expand(study(factors={"victim.batch": [16, 48]}), SAMPLES)
    both = expand(study(factors={"victim.batch": [16, 48], "victim.workers": [1, 2]}), SAMPLES)
    assert list(both.crafts) == list(one.crafts)
    assert [key for key, victim in both.victims.items() if victim.workers == 1] == list(one.victims)
    assert len(both.victims) == 2 * len(one.victims)
    joint = [victim for victim in both.victims.values() if victim.workers == 2]
    assert {(victim.job, victim.crafts) for victim in joint} == {(v.job, v.crafts) for v in one.victims.values()}
    assert all(", 2 workers, seed" in victim.title for victim in joint)


def test_the_number_of_workers_is_no_setting_of_other_victims():
    (victim, *_) = expand(study(victim={"workers": 2}), SAMPLES).victims.values()
    assert type(victim.job.config) is VictimConfig
    for config in (TrainConfig, EvaluateConfig, RecommendConfig):
        with pytest.raises(UsageError, match=r"unknown setting 'victim.workers'"):
            build_config(config, {"victim": {"workers": 2}})


def test_learners_of_features_have_a_batch_of_their_own():
    grid = expand(study(victim={"workers": 3, "batch": 5}, recipes=["simclr-3"]), SAMPLES)
    assert {victim.workers for victim in grid.victims.values()} == {3}
