"""MTL-UE: what its losses are, what partial protection leaves, and what holds for every method."""

import numpy as np
import pytest
import torch
from slowly import slow_but
from toys import AnnotatedToys, ToySource, alone, craft, joined, make_problem, restore, save

from hpcule.config.errors import DataError, UsageError
from hpcule.config.run import CraftTasks
from hpcule.craft.preparation import check_task
from hpcule.craft.table import configure, find
from hpcule.data.annotations import UNKNOWN, LabelMatrix
from hpcule.measure.ranking import area_under_curve
from hpcule.nets.label_generator import build_label_generator
from hpcule.store.budget import magnitude
from hpcule.tasks.table import task_of
from hpcule.victim.config import VictimConfig
from hpcule.victim.published import Published
from hpcule.victim.supervised import train_network
from hpcule.world.keyed import normal

SMALL = ["surrogate=convnet", "batch=24", "ghost=6", "epochs=2", "embedding=2", "augment=none"]


def config(*settings):
    overrides = [f"method.{setting}" for setting in (*SMALL, *settings)]
    return configure("mtl-ue", "toys", preset=None, file={}, overrides=overrides)


def make_method(source, world=None, *settings, shards=4):
    problem = make_problem(source, world, shards=shards, crafted_for=CraftTasks(("labels",)))
    return find("mtl-ue")(config(*settings).method, problem)


def test_likeness_is_that_of_a_slow_reference():
    generator = build_label_generator(channels=1, labels=3, width=2, size=(8, 8), seed=0)
    chosen = torch.tensor([0, 2])
    rows = generator.pairs.detach()[chosen].flatten(2).double()

    def cosine(a, b):
        return float(a @ b / (a.norm() * b.norm()))

    within = np.mean([1 + cosine(*rows[label]) for label in range(2)])
    between = np.mean([abs(cosine(rows[0, one], rows[1, other])) for one in range(2) for other in range(2)])
    with torch.no_grad():
        likeness = generator.likeness(chosen)
    for found, expected in zip(likeness, (within, between), strict=True):
        assert float(found) == pytest.approx(expected, abs=1e-5)
    assert generator.likeness(torch.tensor([1]))[1].item() == 0


def test_a_label_changes_the_delta_unless_it_is_kept():
    source = AnnotatedToys(24)
    source.label_matrix = LabelMatrix(np.zeros((24, 3), np.int8), ("a", "b", "c"))
    method = make_method(source, None, "keep=[b]")
    clean, ids = torch.from_numpy(source.samples[:2]).float() / 255, np.arange(2)
    before = method._delta(clean, method._targets(ids)).detach()
    for label, moved in ((0, True), (1, False), (2, True)):
        source.label_matrix.values[:] = 0
        source.label_matrix.values[:, label] = 1
        after = method._delta(clean, method._targets(ids)).detach()
        assert bool((after != before).any()) == moved


def test_an_unknown_label_stands_for_both_values():
    generator = build_label_generator(channels=1, labels=1, width=2, size=(8, 8), seed=0)
    with torch.no_grad():
        generator.embeddings[1] = generator.embeddings[0]
    images = torch.rand(2, 1, 8, 8)
    same = [generator(images, torch.full((2, 1), share)).detach() for share in (0.0, 0.5, 1.0)]
    torch.testing.assert_close(same[0], same[1])
    torch.testing.assert_close(same[0], same[2])


class TwoSigns(ToySource):
    """Noise with a bright left edge where the first label holds, and a bright upper edge where the second does."""

    def __init__(self, n, seed):
        super().__init__(n, (1, 16, 16), contrast=0.0, seed=seed)
        holds = (normal(seed, np.arange(n), 2) > 0).astype(np.int8)
        light = np.full((n, 1, 16, 16), 110.0)
        light[:, 0, 3:13, 1:4] += 14 * holds[:, 0, None, None]
        light[:, 0, 1:4, 3:13] += 22 * holds[:, 1, None, None]
        noise = 28 * normal(seed + 1, np.arange(n), 256).reshape(light.shape)
        self.samples = np.clip(light + noise, 0, 255).astype(np.uint8)
        self.labels = self.class_names = None
        self.label_matrix = LabelMatrix(holds, ("left", "upper"))


def areas(train, test, delta=None):
    """The area under the curve of each label, of a victim of these samples."""
    victim = VictimConfig(task="labels", network="convnet", epochs=12, batch=20, optimizer="adam", learning_rate=0.002)

    def publish(ids, samples):
        return samples if delta is None else (samples + delta[ids]).astype(np.uint8)

    sets = [Published(source, resident=2**30, task=task_of("labels", source)) for source in (train, test)]
    sets[0] = Published(train, publish, resident=2**30, task=task_of("labels", train))
    network, _ = train_network(victim, *sets, alone(), 0)
    with torch.no_grad():
        answers = network(torch.from_numpy(test.samples).float() / 255).double()
    holds = torch.from_numpy(test.label_matrix.values == 1)
    return [area_under_curve(answers[:, label], holds[:, label]) for label in range(2)]


@pytest.mark.slow
def test_partial_protection_leaves_the_label_that_is_kept():
    train, test = TwoSigns(400, 0), TwoSigns(500, 50)
    clean = areas(train, test)
    assert min(clean) > 0.85
    settings = ["epsilon=16", "epochs=12", "batch=60", "ghost=30", "embedding=8", "model_steps=4"]
    kept = areas(train, test, craft(make_method(train, None, *settings, "keep=[upper]")).delta)
    assert kept[0] < clean[0] - 0.1
    assert kept[1] > clean[1] - 0.03


def test_the_budget_the_box_and_what_falls():
    source = AnnotatedToys(40)
    found = craft(make_method(source, None, "epochs=6"))
    assert 1 < magnitude(found.delta, "linf").max() <= 8
    published = source.samples + found.delta.astype(int)
    assert 0 <= published.min() <= published.max() <= 255
    figures = [step.figures for step in found.steps if step.stage == "generator"]
    assert figures[-1]["intra"] < figures[0]["intra"]
    assert figures[-1]["inter"] < figures[0]["inter"]


def craft_on(world, shards):
    torch.set_num_threads(1)
    return craft(make_method(AnnotatedToys(45), world, "augment=crop-flip", "keep=[c]", shards=shards))


@pytest.mark.parametrize("shards", slow_but([4], [4, 5]))
def test_any_number_of_ranks_crafts_the_same_bits(pool, trio, shards):
    expected = craft_on(alone(), shards).delta
    for ranks in (pool, trio):
        np.testing.assert_array_equal(joined(ranks.run(craft_on, shards)).delta, expected)


@pytest.mark.parametrize("steps", slow_but([4], [1, 3, 4, 7]))
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, steps):
    source = AnnotatedToys(40)
    expected = craft(make_method(source)).delta
    method = make_method(source)
    craft(method, stop_after=steps)
    save(method, tmp_path)
    np.testing.assert_array_equal(craft(restore(make_method(source), tmp_path)).delta, expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["keep=[d]"], "unknown label 'd'.*Valid: a, b, c"),
        (["keep=[a, b, c]"], "no label is left to protect"),
        (["task=label"], "method.task=label: this method is for several labels"),
        (["epochs=0"], "epochs=0: valid are whole numbers from 1"),
    ],
)
def test_what_makes_no_sense_is_refused(settings, message):
    with pytest.raises(UsageError, match=message):
        make_method(AnnotatedToys(24), None, *settings)


def test_samples_without_several_labels():
    with pytest.raises(DataError, match="no table of several labels"):
        check_task(config(), ToySource())


def test_unknown_labels_count_in_no_loss():
    source = AnnotatedToys(24)
    source.label_matrix.values[:] = UNKNOWN
    found = craft(make_method(source, None, "intra=0", "inter=0"))
    assert {step.figures["loss"] for step in found.steps if step.stage == "generator"} == {0.0}
