"""Class texture: what samples of a class share is a spectrum, and nothing else."""

import numpy as np
import pytest
import torch
from toys import ToySource, craft, joined, make_problem

from hpcule.config.errors import UsageError
from hpcule.craft.methods import texture
from hpcule.craft.table import configure, find

EPSILON = 16


def make_method(source, *overrides, world=None, shards=2, seed=1):
    config = configure("texture", "toys", preset="paper", file={}, overrides=overrides).method
    return find("texture")(config, make_problem(source, world, shards=shards, seed=seed))


def crafted(source, *overrides, seed=1):
    return craft(make_method(source, *overrides, seed=seed)).delta.astype(np.int64)


def grey_middle(n, classes, side=32):
    """A source without extremes, so that no published value is clipped."""
    source = ToySource(n, (3, side, side), classes)
    source.samples = source.samples.clip(64, 191)
    return source


def spectrum(delta):
    """Mean energy of the first channel at each frequency [H, W], of 1 in all."""
    energy = (np.abs(np.fft.fft2(delta[:, 0])) ** 2).mean(0)
    return energy / energy.sum()


def overlap(one, other):
    return np.minimum(one, other).sum()


def test_classes_differ_in_their_spectra():
    source = grey_middle(240, 2)
    delta = crafted(source)
    first, second, again = (
        spectrum(delta[rows])
        for rows in (source.labels == 0, source.labels == 1, np.flatnonzero(source.labels == 0)[::2])
    )
    assert overlap(first, again) > 0.85
    assert overlap(first, second) < 0.35


def test_what_a_class_shares_is_no_pattern():
    source = grey_middle(240, 2)
    own = crafted(source)[source.labels == 0, 0].reshape(120, -1)
    assert np.abs(own.mean(0)).mean() < 0.15 * np.abs(own).mean()
    correlations = np.corrcoef(own)[~np.eye(120, dtype=bool)]
    assert abs(correlations.mean()) < 0.02


def test_the_budget_is_used_in_full():
    delta = crafted(grey_middle(40, 2), f"method.epsilon={EPSILON}")
    assert np.abs(delta).max() == EPSILON
    assert np.sqrt((delta**2).mean()) > 0.75 * EPSILON


def test_all_channels_change_alike_unless_colour_is_asked_for():
    source = grey_middle(40, 2)
    delta = crafted(source)
    assert (delta == delta[:, :1]).all()
    coloured = crafted(source, "method.colour=true")
    assert abs(np.corrcoef(coloured[:, 0].ravel(), coloured[:, 1].ravel())[0, 1]) < 0.1


def test_flat_parts_get_a_share_of_the_budget():
    source = grey_middle(40, 2)
    source.samples[:, :, :, :16] = 128
    # Where the square around a pixel is flat, and where it reaches a deviation of far more than the budget.
    flat, rough = np.s_[:, :, 5:-5, 5:10], np.s_[:, :, 5:-5, 22:-5]
    whole, half, none = (crafted(source, f"method.flat={share}") for share in (1, 0.5, 0))
    assert (half[rough] == whole[rough]).all()
    assert (np.abs(2 * half[flat] - whole[flat]) <= 1).all()
    assert np.abs(half[flat]).max() == EPSILON // 2
    assert (none[flat] == 0).all()


@pytest.mark.parametrize(("side", "colour"), [(24, "true"), (200, "false")])
def test_a_sample_gets_the_same_whatever_is_perturbed_with_it(side, colour):
    source = ToySource(7, (3, side, side - 5), 2)
    method = make_method(source, f"method.colour={colour}", "method.flat=0.5")
    ids = np.arange(7)

    def deltas(parts):
        return np.concatenate([method.perturb(source.samples[part], source.labels[part], part) for part in parts])

    threads, expected = torch.get_num_threads(), deltas([ids])
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            for parts in (np.split(ids, [1, 5, 6]), np.split(ids, 7)):
                np.testing.assert_array_equal(deltas(parts), expected)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(craft(method).delta, expected)
    assert expected.dtype == np.int8


def test_purity_is_the_share_of_samples_with_their_own_class_s_spectrum():
    source = grey_middle(400, 2)
    pure, mixed, none = (crafted(source, f"method.purity={purity}") for purity in (1, 0.5, 0))
    strayed = [(delta != pure).any((1, 2, 3)).mean() for delta in (mixed, none)]
    # A random class is the own one half of the time.
    assert strayed == pytest.approx([0.25, 0.5], abs=0.08)
    first, second = (spectrum(none[source.labels == label]) for label in (0, 1))
    assert overlap(first, second) > 0.85


def test_longer_waves_can_be_asked_for():
    delta = crafted(grey_middle(60, 2, side=64), "method.shortest=16", "method.longest=32")
    frequency = np.hypot(np.fft.fftfreq(64)[:, None], np.fft.fftfreq(64)[None])
    assert spectrum(delta)[frequency > 1 / 10].sum() < 0.2


def test_too_narrow_a_range_for_the_classes_is_refused():
    with pytest.raises(UsageError, match="10 spectra need 4 bands of wavelengths, and from 5 to 8 pixels there are 2"):
        crafted(grey_middle(60, 10), "method.shortest=5", "method.longest=8")


def striped(n=60, labelled=False):
    """Images of three kinds: smooth, fine horizontal stripes, fine vertical ones; and which kind each is."""
    source = ToySource(n, (3, 32, 32), 3, contrast=0, labelled=labelled)
    kinds = np.random.default_rng(5).integers(0, 3, n)
    wave = np.where(np.arange(32) % 4 < 2, 40, -40)
    stripes = np.stack([np.zeros((32, 32)), np.tile(wave[:, None], 32), np.tile(wave, (32, 1))])
    source.samples = (source.samples.astype(int) // 4 + 96 + stripes[kinds, None].astype(int)).astype(np.uint8)
    return source, kinds


def rows(method, shards):
    """The row of each sample in the table of spectra."""
    return np.concatenate([method.answer(shard).spectrum for shard in range(shards)])


def test_clusters_need_no_labels_and_follow_what_images_show():
    source, kinds = striped()
    method = make_method(source, "method.clusters=3")
    outcome = craft(method)
    assert [step.stage for step in outcome.steps] == ["features", "features", "clusters", "noise", "noise"]
    assert not find("texture").needs_labels(method.config)
    clusters = rows(method, 2)
    assert len(set(zip(kinds.tolist(), clusters.tolist(), strict=True))) == 3
    delta = outcome.delta.astype(np.int64)
    first, again, second = (
        spectrum(delta[chosen])
        for chosen in (clusters == 0, np.flatnonzero(clusters == 0)[::2], np.flatnonzero(clusters == 1))
    )
    assert overlap(first, again) > overlap(first, second) + 0.3


def craft_clusters(world, overrides):
    return craft(make_method(striped(75)[0], "method.clusters=3", *overrides, world=world, shards=5))


def test_two_ranks_and_one_find_the_same_clusters(pool, alone):
    expected = craft_clusters(alone, [])
    np.testing.assert_array_equal(joined(pool.run(craft_clusters, [])).delta, expected.delta)


def test_clusters_have_nothing_to_do_with_labels():
    labelled, plain = (craft(make_method(striped(labelled=known)[0], "method.clusters=3")) for known in (True, False))
    np.testing.assert_array_equal(labelled.delta, plain.delta)


def test_clusters_by_what_an_encoder_sees(monkeypatch):
    class Brightness(torch.nn.Module):
        name, weights_sha256, dimension = "brightness", "0", 3

        def forward(self, images):
            return 100 * images.mean((2, 3))

    asked = []

    def load(name, checkpoint, *, input_size):
        asked.append((name, checkpoint, input_size))
        return Brightness().eval()

    monkeypatch.setattr(texture, "load_encoder", load)
    source, _ = striped()
    source.samples[::2] //= 2
    method = make_method(source, "method.clusters=2", "method.encoder=resnet18", "method.encoder_size=64")
    craft(method)
    assert asked == [("resnet18", None, 64)]
    found = rows(method, 2)
    assert len({*found[::2].tolist()}) == 1
    assert len({*found[1::2].tolist()} | {*found[::2].tolist()}) == len({*found[1::2].tolist()}) + 1 == 2


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["method.encoder=resnet18"], "encoder=resnet18: it finds clusters: set clusters as well"),
        (["method.clusters=2", "method.checkpoint=a.pt"], "checkpoint=a.pt: it is that of an encoder"),
        (["method.clusters=1"], "method.clusters=1: valid are whole numbers from 2"),
    ],
)
def test_settings_of_clusters_that_do_not_fit_are_refused(overrides, message):
    with pytest.raises(UsageError, match=message):
        configure("texture", "toys", preset=None, file={}, overrides=overrides)
