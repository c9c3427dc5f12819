"""Learned spectra: the same for any number of ranks and after any interruption, and read better than before."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import nn
from toys import ToySource, craft, joined, make_problem, restore, save

from hpcule.config.errors import DataError, HpculeError, UsageError
from hpcule.craft.methods import texture, texture_learned
from hpcule.craft.methods.texture import ClassTexture, TextureConfig
from hpcule.craft.methods.texture_learned import LearnedTexture, LearnedTextureConfig
from hpcule.craft.parts.spectra_learner import SPREAD_EVENLY
from hpcule.craft.table import configure
from hpcule.data.schedule import Ghost
from hpcule.world.coloured import to_images
from hpcule.world.spectra import amplitudes

SMALL = {"epsilon": 24, "batch": 18, "ghost": 5, "steps": 4, "encoders": ("tiny", "wide")}


class TinyEncoder(nn.Module):
    """What random filters without a mean let through, in place of a pretrained network."""

    name, weights_sha256 = "tiny", "0"

    def __init__(self, dimension: int) -> None:
        super().__init__()
        torch.manual_seed(dimension)
        self.dimension = dimension
        self.filters = nn.Conv2d(3, dimension, 7, bias=False)
        self.filters.weight.data -= self.filters.weight.mean((2, 3), keepdim=True)
        self.requires_grad_(False)
        self.eval()

    def forward(self, images):
        return self.filters(images).abs().mean((2, 3))


@contextmanager
def tiny_encoders():
    original = texture_learned.load_encoder
    for module in (texture, texture_learned):
        module.load_encoder = lambda name, checkpoint, *, input_size: TinyEncoder({"tiny": 8, "wide": 24}[name])
    try:
        yield
    finally:
        for module in (texture, texture_learned):
            module.load_encoder = original


@pytest.fixture(autouse=True)
def _tiny():
    with tiny_encoders():
        yield


def make_source(n=54, **settings):
    return ToySource(n, (3, 24, 24), classes=3, **settings)


def make_method(source, world=None, *, shards=4, exact=True, **settings):
    problem = make_problem(source, world, shards=shards, exact=exact, seed=1)
    return LearnedTexture(LearnedTextureConfig(**{**SMALL, **settings}), problem)


def craft_on(world, settings):
    with tiny_encoders():
        return craft(make_method(make_source(), world, **settings))


def check_same(answers, expected):
    assert len({len([step for step in answer.steps if step.stage == "spectra"]) for answer in answers}) == 1
    np.testing.assert_array_equal(joined(answers).delta, expected.delta)


@pytest.mark.parametrize("settings", [{}, {"flat": 0.5, "colour": True, "steps": 2}])
def test_two_ranks_and_one_craft_the_same_bits(pool, alone, settings):
    check_same(pool.run(craft_on, settings), craft_on(alone, settings))


@pytest.mark.slow
def test_three_ranks_and_one_craft_the_same_bits(trio, alone):
    check_same(trio.run(craft_on, {}), craft_on(alone, {}))


def test_an_interrupted_run_ends_with_the_same_bits(tmp_path):
    source = make_source()
    whole = craft(make_method(source))
    assert [step.stage for step in whole.steps] == ["spectra"] * 4 + ["noise"] * 4
    for stop_after in (1, 3, 4):
        folder = tmp_path / str(stop_after)
        folder.mkdir()
        method = make_method(source)
        craft(method, stop_after=stop_after)
        save(method, folder)
        rest = craft(restore(make_method(source), folder))
        np.testing.assert_array_equal(rest.delta, whole.delta, err_msg=f"stopped after {stop_after}")
        assert len(rest.steps) == len(whole.steps) - stop_after


def test_learning_names_the_texture_better_and_keeps_a_table_of_spectra():
    settings = {"steps": 16, "batch": 54, "ghost": 18, "learning_rate": 0.1, "encoders": ("wide",), "shortest": 2.0}
    method = make_method(make_source(contrast=0.05), **settings, longest=32.0)
    start = method.learner.table()
    figures = [step.figures for step in craft(method).steps if step.stage == "spectra"]
    assert figures[0]["cross_entropy"] == pytest.approx(np.log(3)), "heads begin at zero"
    assert np.mean([figure["cross_entropy"] for figure in figures[-4:]]) < 0.7 * figures[0]["cross_entropy"]
    assert np.mean([figure["accuracy_0"] for figure in figures[-4:]]) > 0.6
    table = method.learner.table()
    for spectra in (start, table):
        np.testing.assert_allclose(spectra.sum(1), 1, rtol=1e-5)
        assert (spectra > 0).all()
    assert np.abs(table - start).max() > 0.05


def test_without_steps_the_spectra_are_the_combs_but_for_what_is_spread_evenly():
    source = make_source()
    method = make_method(source, steps=0)
    fixed = ClassTexture(TextureConfig(), make_problem(source, seed=1)).combs
    expected = (1 - SPREAD_EVENLY) * fixed + SPREAD_EVENLY / fixed.shape[1]
    delta = craft(method).delta
    np.testing.assert_allclose(method.learner.table(), expected, rtol=1e-5)
    np.testing.assert_allclose(method.amplitudes, amplitudes(expected, method.energies), rtol=1e-4)
    assert LearnedTexture.untrained(method.config).steps == 0
    assert np.abs(delta).max() == 24


@pytest.mark.parametrize("settings", [{}, {"colour": True}, {"flat": 0.3}])
def test_what_is_learnt_from_is_what_is_published(settings):
    """The differentiable noise is that of `perturb`, but for rounding."""
    source = make_source(12, contrast=0.1)
    method = make_method(source, shards=1, **settings)
    ids = np.arange(12)
    published = source.samples[ids] + method.perturb(source.samples[ids], source.labels[ids], ids)
    seen = method.textured(Ghost(0, ids), torch.from_numpy(method.combs[source.labels[ids]]))
    assert (255 * seen - torch.from_numpy(published)).abs().max() < 0.51


def test_the_gradient_of_the_noise_is_that_of_finite_differences():
    source = make_source(3)
    method = make_method(source, shards=1)
    ghost = Ghost(0, np.arange(3))
    weights = torch.rand(3, 3, 24, 24, generator=torch.Generator().manual_seed(0))
    spectra = torch.from_numpy(0.8 * method.combs + 0.2 / method.combs.shape[1]).requires_grad_()
    (gradient,) = torch.autograd.grad((weights * method.textured(ghost, spectra)).sum(), spectra)
    step = 1e-2
    for row, cell in [(0, 0), (1, 2), (2, spectra.shape[1] - 1)]:
        moved = torch.zeros_like(spectra)
        moved[row, cell] = step
        with torch.no_grad():
            ends = [(weights * method.textured(ghost, spectra + sign * moved)).sum() for sign in (1, -1)]
        assert float(gradient[row, cell]) == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=0.05, abs=0.05)


def test_the_taught_class_has_nothing_to_do_with_the_sample_and_changes_with_the_epoch():
    source = make_source(600)
    method = make_method(source, shards=1)
    first, again, later = (method.learner._targets(Ghost(0, np.arange(600)), epoch) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first == source.labels).mean() == pytest.approx(1 / 3, abs=0.06)
    assert (first == later).mean() == pytest.approx(1 / 3, abs=0.06)
    assert np.bincount(first).min() > 150


def test_labels_choose_a_spectrum_and_are_no_part_of_its_learning():
    labelled, other = make_source(), make_source()
    other.labels = np.roll(other.labels, 1)
    tables = []
    for source in (labelled, other):
        method = make_method(source, steps=2)
        craft(method)
        tables.append(method.learner.table())
    np.testing.assert_array_equal(*tables)


def test_clusters_of_the_first_encoder_take_the_place_of_labels():
    labelled, plain = (make_source(labelled=known) for known in (True, False))
    methods = [make_method(source, clusters=3, steps=1) for source in (labelled, plain)]
    outcomes = [craft(method) for method in methods]
    np.testing.assert_array_equal(outcomes[0].delta, outcomes[1].delta)
    assert [step.stage for step in outcomes[0].steps[:6]] == ["features"] * 4 + ["clusters", "spectra"]
    assert LearnedTexture.work(methods[0].config, None) is None
    with_labels = craft(make_method(labelled, steps=1))
    assert (with_labels.delta != outcomes[0].delta).any()


def test_values_that_diverge_end_the_run():
    with pytest.raises(HpculeError, match="has diverged"):
        craft(make_method(make_source(), learning_rate=1e37, exact=False))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["encoders=[]"], r"method\.encoders=\[\]: name at least one"),
        (["encoders=[resnet18, resnet50]", "encoder_weights=[a.pt]"], "name one for each of the 2 encoders"),
        (["steps=-1"], "method.steps=-1: valid are whole numbers from 0"),
        (["encoder=resnet18"], "unknown setting 'method.encoder': did you mean 'method.encoders'"),
    ],
)
def test_what_is_wrong_is_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        configure("texture-learned", "toys", preset=None, file={}, overrides=[f"method.{text}" for text in overrides])


def test_images_of_two_channels_are_refused(monkeypatch, tmp_path):
    with pytest.raises(DataError, match="takes images of 1 or 3 channels, not 2"):
        encoder_of_resnet18(monkeypatch, tmp_path, ToySource(12, (2, 16, 16)))


def encoder_of_resnet18(monkeypatch, folder, source):
    """A method with an untrained ResNet-18 from a checkpoint."""
    from hpcule.nets.encoder import load_encoder
    from hpcule.nets.pretrained import ARCHITECTURES

    monkeypatch.setattr(texture_learned, "load_encoder", load_encoder)
    file = folder / "resnet18.pt"
    torch.manual_seed(0)
    torch.save(ARCHITECTURES["resnet18"].build(32).state_dict(), file)
    overrides = ["encoders=[resnet18]", f"encoder_weights=[{file}]", "encoder_size=32", "batch=6", "ghost=3", "steps=2"]
    overrides = [f"method.{text}" for text in overrides]
    config = configure("texture-learned", "toys", preset=None, file={}, overrides=overrides)
    return LearnedTexture(config.method, make_problem(source, shards=2, seed=1))


@pytest.mark.parametrize("channels", [1, 3])
def test_with_an_encoder_from_a_checkpoint(channels, monkeypatch, tmp_path):
    method = encoder_of_resnet18(monkeypatch, tmp_path, ToySource(12, (channels, 16, 16)))
    start = method.learner.table()
    outcome = craft(method)
    assert outcome.delta.shape == (12, channels, 16, 16)
    assert 0 < np.abs(outcome.delta).max() <= 16
    assert np.abs(method.learner.table() - start).max() > 0


def test_the_noise_is_that_of_the_learnt_spectra():
    source = make_source(12, contrast=0.1)
    method = make_method(source, steps=2)
    delta = craft(method).delta
    spectra = (
        method.drawn.white(np.arange(12), 24, 24)
        * amplitudes(method.learner.table(), method.energies)[source.labels, None]
    )
    noise = to_images(spectra, 24)
    assert np.corrcoef(delta[:, :1].ravel(), noise.ravel())[0, 1] > 0.85
