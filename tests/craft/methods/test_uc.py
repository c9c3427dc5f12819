from __future__ import annotations

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import HpculeError
from hpcule.craft.cache import Cache
from hpcule.craft.methods import uc
from hpcule.craft.methods.uc import UCConfig, UnlearnableClusters
from hpcule.craft.parts.cluster_generator import ClusterGenerator
from hpcule.data.augment import CropFlip
from hpcule.data.schedule import Schedule
from hpcule.nets import generator
from hpcule.nets.encoder import load_encoder
from hpcule.store.vault import Vault
from hpcule.world.keyed import key

SMALL = {"epsilon": 16.5, "clusters": 3, "batch": 18, "ghost": 7, "steps": 3, "learning_rate": 1e-3, "augment": False}


class TinyEncoder(nn.Module):
    """A frozen random network in place of the pretrained one: what is tested here is what UC does with it."""

    name, weights_sha256 = "tiny", "0"

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.requires_grad_(False)
        self.eval()

    def forward(self, images):
        return 10 * self.network(images)


@contextmanager
def small_networks():
    """UC with the tiny encoder, and with generators of a hundredth of the size."""
    originals = uc.load_encoder, generator.WIDTH, generator.RESIDUAL_BLOCKS
    uc.load_encoder = lambda name, checkpoint, *, input_size: TinyEncoder()
    generator.WIDTH, generator.RESIDUAL_BLOCKS = 8, 2
    try:
        yield
    finally:
        uc.load_encoder, generator.WIDTH, generator.RESIDUAL_BLOCKS = originals


@pytest.fixture(autouse=True)
def _small():
    with small_networks():
        yield


def make_source(n=54):
    return ToySource(n, (3, 8, 8), classes=3, contrast=0.3)


def make_method(source, world=None, *, shards=4, done=frozenset(), exact=True, **settings):
    problem = make_problem(source, world, shards=shards, done=done, exact=exact)
    return UnlearnableClusters(UCConfig(**{**SMALL, **settings}), problem)


def tensors_of(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


class Recorder(ClusterGenerator):
    """Keeps what each update got, and the generator as it was before it."""

    log: list

    def update(self, delta, gradient, learning_rate):
        before = copy.deepcopy(self._generator)
        super().update(delta, gradient, learning_rate)
        found = [parameter.grad.clone() for parameter in self._generator.parameters()]
        self.log.append((self.cluster, before, self._noise, gradient.clone(), found, learning_rate))


@pytest.fixture
def recorded(monkeypatch):
    log = []
    monkeypatch.setattr(uc, "ClusterGenerator", type("Recording", (Recorder,), {"log": log}))
    return log


def whole_batch_loss(method, network, noise, cluster, ids, purpose=None):
    """The published objective on all samples of a batch at once, through the generator, float64."""
    config, source = method.config, method.problem.source
    encoder, network = copy.deepcopy(method.encoded.encoder).double(), network.double()
    samples = torch.from_numpy(source.samples[ids])
    if purpose is not None:
        samples = CropFlip.draw(purpose, ids, 1).apply(samples)
    delta = network(noise.double())[0].clamp(-config.epsilon / 255, config.epsilon / 255)
    features = encoder((samples / 255 + delta).clamp(0, 1))
    target = functional.softmax(method.centers[cluster].double(), 0)
    log_ratio = target.log() - functional.log_softmax(features, 1)
    return (target * log_ratio).sum(1).mean(), delta


def schedule_of(method, cluster):
    cut, config = method.problem.partition, method.config
    members = [cut.ids(shard) for shard in range(cut.count)]
    return Schedule(members, config.ghost, config.batch, method.problem.seed, f"uc {cluster}")


@pytest.mark.parametrize("offset", [1, 2])
@pytest.mark.parametrize("augment", [False, True])
def test_the_generators_gradient_is_that_of_the_whole_batch(recorded, offset, augment):
    method = make_method(make_source(), target_offset=offset, augment=augment, steps=2)
    craft(method)
    assert [entry[0] for entry in recorded] == [0, 0, 1, 1, 2, 2]
    uneven = 0
    for number, (cluster, before, noise, gradient, found, _) in enumerate(recorded):
        ghosts = schedule_of(method, cluster).at(number % 2)
        uneven += len({len(ghost.ids) for ghost in ghosts}) > 1
        ids = np.concatenate([ghost.ids for ghost in ghosts])
        purpose = key(0, "uc augment", cluster, 0) if augment else None
        loss, delta = whole_batch_loss(method, before, noise, (cluster + offset) % 3, ids, purpose)
        (of_delta,) = torch.autograd.grad(loss, delta, retain_graph=True)
        torch.testing.assert_close(gradient.double(), of_delta, rtol=1e-3, atol=1e-4 * of_delta.abs().max().item())
        expected = torch.autograd.grad(loss, list(before.parameters()))
        largest = max(part.abs().max() for part in expected)
        for one, other in zip(found, expected, strict=True):
            assert (one - other).abs().max() < 1e-3 * largest
    assert uneven, "some batches have ghosts of unequal size"


def test_the_norms_of_a_step_are_those_of_single_samples(recorded):
    method = make_method(make_source(), steps=1)
    steps = [step for step in craft(method).steps if step.norms]
    assert [event.figures["cluster"] for event in steps] == [0, 1, 2]
    for event, (cluster, before, noise, gradient, _, _) in zip(steps, recorded, strict=True):
        ids = np.concatenate([ghost.ids for ghost in schedule_of(method, cluster).at(0)])
        squares = []
        for sample in ids:
            loss, delta = whole_batch_loss(method, copy.deepcopy(before), noise, (cluster + 1) % 3, np.array([sample]))
            (of_delta,) = torch.autograd.grad(loss, delta)
            squares.append(float(of_delta.square().sum()))
        assert (event.norms.groups, event.norms.samples) == (len(ids), len(ids))
        assert event.norms.weighted_squares == pytest.approx(sum(squares), rel=1e-3)
        assert event.norms.squared_norm == pytest.approx(float(gradient.double().square().sum()), rel=1e-6)
        assert sum(squares) > 1.001 * len(ids) * event.norms.squared_norm, "the samples differ"


def test_a_cluster_is_moved_onto_the_next_ones_centre(recorded):
    """The gradient fits the centre of cluster k + 1 and no other."""
    method = make_method(make_source(), steps=1)
    craft(method)
    for cluster, before, noise, gradient, _, _ in recorded:
        ids = np.concatenate([ghost.ids for ghost in schedule_of(method, cluster).at(0)])
        fits = []
        for target in range(3):
            loss, delta = whole_batch_loss(method, copy.deepcopy(before), noise, target, ids)
            (expected,) = torch.autograd.grad(loss, delta)
            fits.append(torch.allclose(gradient.double(), expected, rtol=1e-2, atol=1e-3 * expected.abs().max()))
        assert fits == [target == (cluster + 1) % 3 for target in range(3)]


def test_the_rate_falls_along_a_cosine(recorded):
    craft(make_method(make_source(), steps=4, clusters=2, learning_rate=1e-2))
    rates = [entry[-1] for entry in recorded if entry[0] == 0]
    assert rates[0] == pytest.approx(1e-2)
    assert rates[2] == pytest.approx(1e-6 + (1e-2 - 1e-6) / 2)
    assert rates == sorted(rates, reverse=True)


@pytest.mark.parametrize("direct", [False, True])
def test_training_moves_samples_towards_the_next_cluster(direct):
    settings = {"steps": 15, "learning_rate": 1e-3, "epsilon": 40, "batch": 54, "direct": direct}
    outcome = craft(make_method(make_source(), **settings))
    steps = [step.figures for step in outcome.steps if step.stage == "generators"]
    for cluster in range(3):
        losses = [figures["divergence"] for figures in steps if figures["cluster"] == cluster]
        assert len(losses) == 15
        assert losses[-1] < 0.7 * losses[0]


def noise_source():
    return ToySource(54, (3, 8, 8), classes=3, contrast=0.02)


def two_sizes(world):
    """Clusters of features that see the samples' first channel alone, and centres of features that see all."""
    with small_networks():
        tiny = uc.load_encoder

        def by_size(name, checkpoint, *, input_size):
            encoder = tiny(name, checkpoint, input_size=input_size)
            if input_size == 96:
                encoder.name = "first channel"
                encoder.network[0].weight[:, 1:] = 0
            return encoder

        uc.load_encoder = by_size
        method = make_method(noise_source(), world, steps=0, cluster_size=96)
        outcome = craft(method)
        uc.load_encoder = tiny
    return method.centers.numpy(), outcome.group, outcome.shared


def test_clusters_of_another_size_have_centres_of_the_size_for_crafting(pool, alone):
    source = noise_source()
    centers, group, _ = two_sizes(alone)
    large, small = TinyEncoder(), TinyEncoder()
    large.network[0].weight[:, 1:] = 0
    samples = torch.from_numpy(source.samples / 255).float()
    features = {"large": large(samples), "small": small(samples)}
    means = {name: torch.stack([part[group == k].mean(0) for k in range(3)]) for name, part in features.items()}
    np.testing.assert_array_equal(torch.cdist(features["large"], means["large"]).argmin(1), group)
    np.testing.assert_allclose(centers, means["small"], atol=1e-5)
    assert (torch.cdist(features["small"], means["small"]).argmin(1).numpy() != group).any()
    for mine in pool.run(two_sizes):
        np.testing.assert_array_equal(mine[0], centers)


@pytest.mark.parametrize("shift", [0.0, 0.3])
def test_moved_samples_are_those_nearest_to_the_target_centre(shift):
    source = make_source()
    method = make_method(source, steps=0, augment=False, batch=54)
    outcome = craft(method)
    delta = torch.full(source.shape, shift)
    features = method.encoded.encoder((torch.from_numpy(source.samples / 255).float() + delta).clamp(0, 1))
    nearest = np.bincount(torch.cdist(features, method.centers).argmin(1).numpy(), minlength=3)
    if shift == 0:
        np.testing.assert_array_equal(nearest, np.bincount(outcome.group))
    for goal in range(3):
        _, measures, _ = method.encoded.gradient(
            delta, method.centers, goal, schedule_of(method, 0).at(0), 0, method.problem.world
        )
        assert measures["moved"] == pytest.approx(nearest[goal] / 54)


def test_without_a_generator_each_step_is_the_sign_of_the_batchs_gradient():
    source = make_source()
    one, two = (craft(make_method(source, steps=steps, direct=True, augment=False, batch=54)) for steps in (1, 2))
    method = make_method(source, steps=1, direct=True, augment=False, batch=54)
    craft(method)
    for cluster in range(3):
        delta = method.deltas[cluster].clone().requires_grad_()
        samples = torch.from_numpy(source.samples).float() / 255
        features = method.encoded.encoder((samples + delta).clamp(0, 1))
        target = functional.softmax(method.centers[(cluster + 1) % 3], 0).expand_as(features)
        functional.kl_div(functional.log_softmax(features, 1), target, reduction="batchmean").backward()
        expected = (delta - 1.65 / 255 * delta.grad.sign()).clamp(-16.5 / 255, 16.5 / 255).detach()
        moved = (expected * 255).round().clamp(-16, 16).numpy()
        assert (moved == two.shared[cluster]).mean() > 0.99
        assert (one.shared[cluster] != two.shared[cluster]).mean() > 0.5


def test_samples_are_clustered_by_their_features():
    source = make_source()
    method = make_method(source, steps=0)
    outcome = craft(method)
    features = method.encoded.encoder(torch.from_numpy(source.samples / 255).float())
    nearest = torch.cdist(features, method.centers).argmin(1)
    np.testing.assert_array_equal(outcome.group, nearest.numpy())
    sizes = np.bincount(outcome.group, minlength=3)
    assert sizes.tolist() == sorted(sizes, reverse=True)
    for cluster in range(3):
        mean = features[torch.from_numpy(outcome.group == cluster)].mean(0)
        torch.testing.assert_close(method.centers[cluster], mean, rtol=1e-4, atol=1e-4)


def test_no_labels_are_needed_and_none_are_used():
    labelled, bare = make_source(), make_source()
    bare.labels = bare.class_names = None
    np.testing.assert_array_equal(craft(make_method(labelled)).shared, craft(make_method(bare)).shared)


def test_the_shared_deltas_keep_the_budget_and_differ():
    outcome = craft(make_method(make_source(), epsilon=9.5))
    assert outcome.shared.shape == (3, 3, 8, 8)
    assert np.abs(outcome.shared).max() == 9
    assert not outcome.deltas
    assert len(outcome.group) == 54
    assert len({delta.tobytes() for delta in outcome.shared}) == 3


def test_no_steps_publish_untrained_generators():
    outcome = craft(make_method(make_source(), steps=0))
    for cluster in range(3):
        settings = {
            "epsilon": 16.5 / 255,
            "bound": "clamp",
            "weight_decay": 5e-4,
            "seed": 0,
            "device": torch.device("cpu"),
        }
        fresh = ClusterGenerator(cluster, (3, 8, 8), **settings).delta().detach()
        np.testing.assert_array_equal(outcome.shared[cluster], (fresh * 255).round().clamp(-16, 16).numpy())


def test_steps_follow_from_epochs():
    outcome = craft(make_method(make_source(), steps=None, epochs=2, clusters=2))
    generators = [step for step in outcome.steps if step.stage == "generators"]
    # 54 samples in batches of 18.
    assert len(generators) == 2 * 2 * 3
    assert generators[-1].done == generators[-1].total == 12


def test_fitting_on_the_cluster_reads_its_own_samples():
    method = make_method(make_source(), fit_on="cluster", steps=4)
    taken = {}

    def record(delta, centers, goal, batch, *others):
        taken.setdefault(method.current.cluster, set()).update(int(i) for ghost in batch for i in ghost.ids)
        return gradient(delta, centers, goal, batch, *others)

    gradient, method.encoded.gradient = method.encoded.gradient, record
    outcome = craft(method)
    for cluster in range(3):
        assert taken[cluster] <= set(np.flatnonzero(outcome.group == cluster))
        assert len(taken[cluster]) > 4


def test_a_generator_that_diverges_ends_the_run():
    with pytest.raises(HpculeError, match="has diverged"):
        craft(make_method(make_source(), learning_rate=1e30, exact=False))


def test_the_encoder_is_the_same_after_crafting():
    method = make_method(make_source())
    before = tensors_of(method.encoded.encoder)
    craft(method)
    assert not method.encoded.encoder.training
    for name, tensor in tensors_of(method.encoded.encoder).items():
        assert (tensor == before[name]).all(), name


def test_features_from_the_cache_give_the_same_bits(tmp_path):
    plain = craft(make_method(make_source()))
    for turn in range(2):
        problem = make_problem(make_source(), cache=Cache(tmp_path))
        method = UnlearnableClusters(UCConfig(**SMALL), problem)
        if turn:
            method.encoded._encode = None  # whoever asks the encoder again fails
        found = craft(method)
        np.testing.assert_array_equal(found.shared, plain.shared)
        np.testing.assert_array_equal(found.group, plain.group)
    assert len(list(tmp_path.glob("*.npy"))) == 4, "one file a shard"


@pytest.mark.parametrize("direct", [False, True])
def test_an_interrupted_run_ends_with_the_same_bits(tmp_path, direct):
    source = make_source(40)
    settings = {"clusters": 2, "steps": 3, "direct": direct}
    whole = craft(make_method(source, **settings))
    assert [step.stage for step in whole.steps] == ["features"] * 4 + ["clusters"] + ["generators"] * 6
    for stop_after in (2, 5, 6, 8, 10, 11):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        method = make_method(source, **settings)
        craft(method, stop_after=stop_after)
        save(method, folder)
        rest = craft(restore(make_method(source, **settings), folder))
        np.testing.assert_array_equal(rest.shared, whole.shared, err_msg=f"stopped after {stop_after}")
        np.testing.assert_array_equal(rest.group, whole.group)
        assert len(rest.steps) == len(whole.steps) - (stop_after if stop_after > 4 else 0)


def test_finished_shards_are_not_handed_out_again():
    outcome = craft(make_method(make_source(), done=frozenset({1, 2}), steps=0))
    assert set(outcome.groups) == {0, 3}


def craft_on(world, settings):
    with small_networks():
        return craft(make_method(make_source(), world, **settings))


def check_same(answers, expected):
    assert len({len(answer.steps) for answer in answers}) == 1, "ranks yield the same events between two collectives"
    together = joined(answers)
    np.testing.assert_array_equal(together.shared, expected.shared)
    np.testing.assert_array_equal(together.group, expected.group)


@pytest.mark.parametrize(
    "settings",
    [
        {"clusters": 3, "steps": 2},
        {"clusters": 2, "steps": 2, "fit_on": "cluster"},
        {"clusters": 3, "steps": 2, "direct": True},
    ],
)
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, settings):
    check_same(pool.run(craft_on, settings), craft_on(alone, settings))


@pytest.mark.slow
def test_ranks_that_share_a_cluster_craft_the_same_bits(trio, alone):
    # Two clusters on three ranks: ranks 0 and 2 sum their gradients, rank 1 works alone.
    settings = {"clusters": 2, "steps": 2, "augment": True}
    check_same(trio.run(craft_on, settings), craft_on(alone, settings))


def begin_on(world, settings, store, stop_after):
    from hpcule.store import checkpoint

    with small_networks():
        method = make_method(make_source(), world, **settings)
        craft(method, stop_after=stop_after)
    state = method.state()
    states = {"shared": state.shared, **state.parts} if world.leads else state.parts
    world.lead(lambda: checkpoint.make_folder(Vault(store), 1))
    written = world.collect(checkpoint.save(Vault(store), 1, world.rank, states).plain())
    world.lead(
        lambda: checkpoint.commit(Vault(store), 1, "toy run", [checkpoint.WrittenFile.of(plain) for plain in written])
    )


@pytest.mark.slow
def test_what_three_ranks_began_one_ends(trio, alone, tmp_path):
    settings = {"clusters": 4, "steps": 2}
    (tmp_path / "run").mkdir()
    # Groups 0, 1 and 2 have clusters 0 and 3, 1, and 2: one step of each, then one ends them all.
    # Four steps for the features' two rounds, the clusters, and the first generators' step.
    trio.run(begin_on, settings, tmp_path, 4)
    rest = craft(restore(make_method(make_source(), **settings), tmp_path))
    expected = craft_on(alone, settings)
    np.testing.assert_array_equal(rest.shared, expected.shared)
    np.testing.assert_array_equal(rest.group, expected.group)


@pytest.mark.parametrize("channels", [1, 3])
def test_with_the_pretrained_encoder(channels, monkeypatch):
    pytest.importorskip("efficientnet_lite_pytorch", reason="needs the extra 'encoder'")
    monkeypatch.setattr(uc, "load_encoder", load_encoder)
    source = ToySource(12, (channels, 16, 16), contrast=0.3)
    config = UCConfig(clusters=2, batch=6, ghost=3, steps=2, encoder_size=32, learning_rate=1e-3)
    method = UnlearnableClusters(config, make_problem(source, shards=2))
    before = tensors_of(method.encoded.encoder)
    outcome = craft(method)
    assert outcome.shared.shape == (2, channels, 16, 16)
    assert 0 < np.abs(outcome.shared).max() <= 16
    figures = outcome.steps[-1].figures
    assert figures["divergence"] > 0
    assert 0 <= figures["saturated"] <= 1
    for name, tensor in tensors_of(method.encoded.encoder).items():
        assert (tensor == before[name]).all(), name
