"""Methods without a surrogate: what they have in common, and the property that makes each of them what it is."""

import math

import numpy as np
import pytest
from toys import ToySource, craft, joined, make_problem

from hpcule.config.errors import HpculeError, UsageError
from hpcule.craft.methods.ar import Autoregressive
from hpcule.craft.methods.classwise import Classwise
from hpcule.craft.methods.lsp import LSP
from hpcule.craft.methods.ops import OnePixelShortcut
from hpcule.craft.parts.autoregression import find_coefficients, generate, responses
from hpcule.craft.table import METHODS, configure, find
from hpcule.store.budget import magnitude
from hpcule.world.keyed import bits, key, normal

# The response asked of AR's filters is lower, so that the search takes no time.
SETTINGS = {
    "ar": ["method.response=1"],
    "lsp": ["method.cell=4"],
}
"""Settings that fit the toys, of methods whose defaults do not."""
NAMES = [name for name, method in METHODS.items() if not method.facts.needs_surrogate]


def source_of(n=61, name="", **settings):
    return ToySource(n, (1, 1, 600) if name and METHODS[name].facts.data == "audio" else (3, 16, 16), 4, **settings)


def config_of(name, *overrides):
    return configure(name, "toys", preset="smoke", file={}, overrides=[*SETTINGS.get(name, []), *overrides]).method


def crafted(name, source, *overrides, world=None, shards=3, **settings):
    """Method and published minus clean [n, C, H, W], by id."""
    method = find(name)(config_of(name, *overrides), make_problem(source, world, shards=shards, **settings))
    return method, published_change(craft(method), source)


def published_change(outcome, source):
    if outcome.shared is None:
        return outcome.delta.astype(np.int64)
    clean = source.samples.astype(np.int64)
    return np.clip(clean + outcome.shared[outcome.group], 0, source.levels) - clean


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_published_samples_keep_the_budget_and_the_grid(name, dtype):
    source = source_of(name=name, dtype=dtype, contrast=0.45)
    _, change = crafted(name, source)
    budget = find(name).budget(config_of(name), source.shape, source.levels)
    sizes = magnitude(change, budget.norm)
    assert sizes.max() <= budget.epsilon
    assert (sizes > 0.5 * min(budget.epsilon, source.levels / 10)).all()
    published = source.samples + change
    assert published.min() >= 0
    assert published.max() <= source.levels


@pytest.mark.parametrize("name", sorted({*NAMES} - {"ops"}))  # which draws nothing
def test_the_seed_is_the_key(name):
    source = source_of(name=name)
    _, one = crafted(name, source, seed=1)
    _, again = crafted(name, source, seed=1)
    _, other = crafted(name, source, seed=2)
    np.testing.assert_array_equal(one, again)
    assert (one != other).any(axis=(1, 2, 3)).all()


def craft_on(world, name, n, shards):
    source = source_of(n, name)
    return craft(find(name)(config_of(name), make_problem(source, world, shards=shards)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("n", "shards"), [(61, 3), (90, 4)])
def test_two_ranks_and_one_craft_the_same(pool, alone, name, n, shards):
    source = source_of(n, name)
    expected = published_change(craft_on(alone, name, n, shards), source)
    found = published_change(joined(pool.run(craft_on, name, n, shards)), source)
    np.testing.assert_array_equal(found, expected)
    # Nor does it matter which ranks own a sample's neighbours.
    np.testing.assert_array_equal(published_change(craft_on(alone, name, n, 7), source), expected)


@pytest.mark.parametrize("name", NAMES)
def test_finished_shards_are_left_alone(name):
    source = source_of(name=name)
    method = find(name)(config_of(name), make_problem(source, shards=3, done=frozenset({1})))
    outcome = craft(method)
    assert set(outcome.deltas) | set(outcome.groups) == {0, 2}
    whole = craft(find(name)(config_of(name), make_problem(source, shards=3)))
    for shard, delta in outcome.deltas.items():
        np.testing.assert_array_equal(delta, whole.deltas[shard])


# -- AR


def slow_process(weights, signal):
    """Every value but those of the first two rows and columns from its eight neighbours, one after the other."""
    signal = signal.copy()
    for row in range(2, signal.shape[1]):
        for column in range(2, signal.shape[2]):
            for channel in range(len(signal)):
                window = signal[channel, row - 2 : row + 1, column - 2 : column + 1]
                signal[channel, row, column] = (window * weights[channel]).sum() - window[2, 2] * weights[channel, 2, 2]
    return signal


def stable(count, channels=3, seed=0):
    """Coefficients whose processes do not diverge: their sums of magnitudes are 1."""
    weights = np.random.default_rng(seed).normal(size=(count, channels, 3, 3))
    weights[:, :, 2, 2] = 0
    return weights / np.abs(weights).sum(axis=(2, 3), keepdims=True)


@pytest.mark.parametrize(("height", "width"), [(9, 9), (5, 12), (12, 5)])
def test_ar_patterns_equal_a_slow_recursion(height, width):
    weights, ids, crop = stable(4), np.array([3, 8, 20, 5]), 3
    found = generate(weights, key(0, "test"), ids, height, width, crop)
    full = np.zeros((4, 3, height + crop, width + crop))
    edge = np.zeros(full.shape[2:], bool)
    edge[:2], edge[:, :2] = True, True
    full[:, :, edge] = normal(key(0, "test"), ids, 3 * edge.sum()).reshape(4, 3, -1)
    for number in range(4):
        slow = slow_process(weights[number], full[number])[:, crop:, crop:]
        np.testing.assert_allclose(found[number], slow, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("side", [16, 80])
def test_ar_filters_answer_zero_on_their_own_class_and_on_no_other(side):
    """However large the samples, of which filters are compared on a part."""
    coefficients = find_coefficients(4, (3, side, side), 4, 6.0, key(5, "search"))
    assert coefficients.shape == (4, 3, 3, 3)
    np.testing.assert_allclose(coefficients[..., -1, -1], 0)
    np.testing.assert_allclose(coefficients.sum(axis=(2, 3)), 1)
    labels = np.arange(40) % 4
    patterns = generate(coefficients[labels], key(1, "other starts"), np.arange(40), side, side, 4)
    patterns /= np.sqrt(np.square(patterns).sum(axis=(1, 2, 3), keepdims=True))
    answers = responses(patterns, coefficients) * 32 / side
    assert answers[np.arange(40), labels].max() < 1e-9
    earlier = np.arange(4) < labels[:, None]
    assert np.median(answers[earlier]) > 6
    assert answers[earlier].min() > 1


def test_ar_samples_of_a_class_are_unlike_each_other():
    source = source_of(80)
    _, change = crafted("ar", source)
    flat = change[source.labels == 0].reshape(20, -1).astype(float)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    cosines = (flat @ flat.T)[~np.eye(20, dtype=bool)]
    assert abs(cosines.mean()) < 0.15


def test_ar_says_what_to_do_where_no_coefficients_are_found(monkeypatch):
    monkeypatch.setattr("hpcule.craft.parts.autoregression.MOST_TRIALS", 8192)
    with pytest.raises(HpculeError, match=r"found coefficients for \d of 4 classes in 8192 trials: lower"):
        find_coefficients(4, (3, 8, 8), 4, 1e6, 0)


# -- LSP


def test_lsp_deltas_are_linearly_separable_mosaics_of_the_stated_length():
    source = source_of(200, contrast=0.1)
    _, change = crafted("lsp", source)
    lengths = np.sqrt(np.square(change.astype(float)).sum(axis=(1, 2, 3)))
    np.testing.assert_allclose(lengths, 6 * math.sqrt(768), rtol=0.03)
    stones = change.reshape(200, 3, 4, 4, 4, 4)
    inside = (source.samples > 60) & (source.samples < 195)
    same = (stones == stones[:, :, :, :1, :, :1]).reshape(change.shape)
    assert same[inside].mean() > 0.9
    flat = np.hstack([change.reshape(200, -1), np.ones((200, 1))])
    onehot = np.eye(4)[source.labels]
    fit, *_ = np.linalg.lstsq(flat, onehot, rcond=None)
    assert ((flat @ fit).argmax(axis=1) == source.labels).all()


def test_lsp_is_as_strong_on_samples_of_any_size():
    for shape, expected in (((3, 32, 32), 332.55), ((1, 28, 28), 168.0)):
        assert LSP.budget(config_of("lsp"), shape, 255).epsilon == pytest.approx(expected, abs=0.01)
    assert Autoregressive.budget(config_of("ar"), (3, 32, 32), 255).epsilon == pytest.approx(255)
    assert Autoregressive.budget(config_of("ar"), (3, 96, 96), 255).epsilon == pytest.approx(765)
    assert LSP.budget(config_of("lsp", "method.epsilon=100"), (3, 32, 32), 255).epsilon == 100


def test_lsp_takes_any_number_of_samples_a_class():
    """The published code fails where a class has more than its even share."""
    source = source_of(60)
    source.labels = np.where(np.arange(60) < 50, 0, 1 + np.arange(60) % 3)
    crafted("lsp", source)


@pytest.mark.parametrize(("cell", "message"), [(16, None), (17, None), (1, "too many: take larger cells")])
def test_lsp_refuses_cells_that_do_not_fit(cell, message, monkeypatch):
    monkeypatch.setattr("hpcule.craft.methods.lsp.MOST_VALUES", 4 * 100**2)
    problem = make_problem(source_of())
    if message is None:
        LSP(config_of("lsp", f"method.cell={cell}"), problem)
        return
    with pytest.raises(UsageError, match=message):
        LSP(config_of("lsp", f"method.cell={cell}"), problem)


def test_lsp_needs_a_corner_for_each_class():
    with pytest.raises(UsageError, match="8 corners, too few for 9 classes"):
        LSP(config_of("lsp", "method.cell=16"), make_problem(ToySource(90, (3, 16, 16), 9)))


# -- OPS


def slow_pixels(source, classes):
    """The authors' search, one class, place and colour after the other."""
    used, chosen = set(), []
    for label in range(classes):
        samples = source.samples[source.labels == label].astype(float)
        best, where = -1.0, None
        for corner in range(8):
            colour = np.array([corner >> 2 & 1, corner >> 1 & 1, corner & 1]) * source.levels
            for row in range(samples.shape[2]):
                for column in range(samples.shape[3]):
                    distance = np.abs(colour - samples[:, :, row, column])
                    score = distance.mean() / distance.std()
                    if score > best and (row, column, tuple(colour)) not in used:
                        best, where = score, (row, column, tuple(colour))
        used.add(where)
        chosen.append(where)
    return chosen


def test_ops_changes_the_pixel_that_the_slow_search_finds():
    source = source_of(60)
    method, change = crafted("ops", source)
    expected = slow_pixels(source, 4)
    assert [(row, column, tuple(colour)) for ((row, column, colour),) in method.pixels] == expected
    published = source.samples + change
    for number, label in enumerate(source.labels):
        row, column, colour = expected[label]
        assert tuple(published[number, :, row, column]) == colour
    assert magnitude(change, "l0").max() == 1


def test_ops_pixels_of_a_class_are_at_different_places():
    source = source_of(60)
    method, change = crafted("ops", source, "method.pixels=3")
    for pixels in method.pixels:
        assert len({(pixel.row, pixel.column) for pixel in pixels}) == 3
    assert magnitude(change, "l0").max() == 3


def test_ops_gives_no_two_classes_the_same_pixel():
    source = ToySource(60, (1, 4, 4), 30)
    source.samples[:] = 100
    pixels = [tuple(own[0][:2]) + tuple(own[0].colour) for own in crafted("ops", source)[0].pixels]
    assert len(set(pixels)) == 30
    with pytest.raises(UsageError, match="32 pairs of a place and a colour are too few for 33 classes"):
        OnePixelShortcut(config_of("ops"), make_problem(ToySource(66, (1, 4, 4), 33)))


# -- CUDA


@pytest.mark.parametrize("direction", ["both", "vertical", "horizontal"])
def test_cuda_equals_a_slow_convolution(direction):
    source = source_of(40)
    method, change = crafted("cuda", source, f"method.direction={direction}")
    height, width = {"both": (3, 3), "vertical": (3, 1), "horizontal": (1, 3)}[direction]
    assert method.filters.shape == (4, 1, 1, height, width)
    top, left = height // 2, width // 2
    for number in range(0, 40, 7):
        weights = method.filters[source.labels[number], 0, 0].double().numpy()
        assert weights.max() == 1
        assert np.sort(weights.ravel())[-2] <= 0.3
        padded = np.pad(source.samples[number].astype(float), ((0, 0), (top, top), (left, left)))
        slow = np.zeros((3, 16, 16))
        for row in range(height):
            for column in range(width):
                slow += weights[row, column] * padded[:, row : row + 16, column : column + 16]
        expected = slow / slow.max() * 255
        assert np.abs(source.samples[number] + change[number] - expected).max() < 0.51


def test_cuda_leaves_a_black_sample_black():
    source = source_of(40)
    source.samples[5] = 0
    _, change = crafted("cuda", source)
    assert not change[5].any()


# -- class-wise patterns


@pytest.mark.parametrize("pattern", ["uniform", "regions", "patches"])
def test_classwise_patterns_are_shared_by_class(pattern):
    source = source_of(40)
    method = Classwise(config_of("classwise", f"method.pattern={pattern}", "method.size=5"), make_problem(source))
    outcome = craft(method)
    np.testing.assert_array_equal(outcome.group, source.labels)
    shared = outcome.shared
    assert shared.shape == (4, 3, 16, 16)
    assert np.abs(shared).max() == 8
    assert len(np.unique(shared.reshape(4, -1), axis=0)) == 4
    if pattern == "regions":
        assert set(np.unique(shared)) == {-8, 8}
        np.testing.assert_array_equal(shared[:, :, :5, :5], np.broadcast_to(shared[:, :, :1, :1], (4, 3, 5, 5)))
        np.testing.assert_array_equal(shared[:, :, 15:, 10:15], np.broadcast_to(shared[:, :, 15:, 10:11], (4, 3, 1, 5)))
    elif pattern == "patches":
        np.testing.assert_array_equal(shared[:, :, 5:10, 10:15], shared[:, :, :5, :5])
        assert len(np.unique(shared)) == 17
    else:
        assert len(np.unique(shared)) == 17
        assert abs(shared.mean()) < 0.5


def test_normal_values_are_normal():
    values = normal(key(0, "normal"), np.arange(400), 101)
    assert values.shape == (400, 101)
    assert np.isfinite(values).all()
    assert abs(values.mean()) < 0.02
    assert abs(values.std() - 1) < 0.02
    assert abs((np.abs(values) < 1).mean() - 0.6827) < 0.01
    np.testing.assert_array_equal(values[7], normal(key(0, "normal"), np.array([7]), 101)[0])
    assert bits(0, np.array([0]), 1).dtype == np.uint64
