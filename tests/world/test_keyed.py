import numpy as np
import pytest

from hpcule.world.keyed import TILE, bits, key, order, uniform, uniform_int16

MASK = 2**64 - 1


def mix(word):
    """SplitMix64's finaliser on a Python integer."""
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & MASK
    return word ^ (word >> 31)


def splitmix(state, count):
    return [mix((state + step * 0x9E3779B97F4A7C15) & MASK) for step in range(1, count + 1)]


def ids(*numbers):
    return np.array(numbers, np.int64)


def test_the_reference_gives_the_published_stream():
    # Java's SplittableRandom(1234567), as quoted with many implementations of SplitMix64.
    assert splitmix(1234567, 3) == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_every_id_has_its_own_stream():
    purpose = key(3, "test")
    found = bits(purpose, ids(0, 5, 10**12), 4)
    for row, sample in zip(found, (0, 5, 10**12), strict=True):
        assert row.tolist() == splitmix(mix(mix(sample + 1) ^ purpose), 4)


def test_results_never_change_silently():
    purpose = key(0, "augment", 3)
    assert purpose == 0x90072B501DB1C32F
    assert bits(purpose, ids(0, 1), 2).tolist() == [
        [6247272018134237277, 8685726607136607719],
        [1870078368420878509, 11846696588466751385],
    ]
    assert uniform(purpose, ids(7), 3).tolist() == [[0.6499472856521606, 0.1065707802772522, 0.2989221215248108]]
    assert uniform_int16(purpose, ids(0), 3).tolist() == [[93, 4129, -15155]]
    assert order(purpose, np.arange(8)).tolist() == [1, 7, 4, 3, 0, 6, 5, 2]


@pytest.mark.parametrize("count", [1, 2, 3, 192, 2 * TILE + 3])
def test_a_sample_draws_the_same_whatever_its_batch(count):
    purpose = key(1, "noise")
    together = uniform(purpose, np.arange(40), count)
    assert together.shape == (40, count)
    assert together.dtype == np.float32
    for batch in (ids(17), ids(3, 17, 2), np.arange(39, -1, -1)):
        np.testing.assert_array_equal(uniform(purpose, batch, count), together[batch])


@pytest.mark.parametrize("count", [1, 5, 4 * TILE + 3])
def test_integers_are_four_of_each_word(count):
    purpose = key(2, "noise")
    found = uniform_int16(purpose, ids(4, 9), count)
    words = bits(purpose, ids(4, 9), -(-count // 4)).tolist()
    for row, own in zip(found, words, strict=True):
        unsigned = [(word >> shift) & 0xFFFF for word in own for shift in (0, 16, 32, 48)][:count]
        assert row.tolist() == [value - 2**16 if value >= 2**15 else value for value in unsigned]
    np.testing.assert_array_equal(uniform_int16(purpose, ids(9), count), found[1:])


def test_longer_draws_begin_like_shorter_ones():
    np.testing.assert_array_equal(uniform(5, np.arange(9), 7)[:, :4], uniform(5, np.arange(9), 4))


def test_drawing_nothing():
    assert uniform(5, ids(), 3).shape == (0, 3)
    assert uniform(5, ids(1, 2), 0).shape == (2, 0)


def test_keys_differ_by_seed_and_purpose():
    keys = {key(0, "a"), key(1, "a"), key(0, "b"), key(0, "a", 0), key(0, "a", 1), key(0, "a0"), key(0, 0, "a")}
    assert len(keys) == 7
    assert all(0 <= value < 2**64 for value in keys)


def test_uniform_values_are_uniform():
    values = uniform(key(2, "uniform"), np.arange(400), 500).astype(np.float64)
    assert 0 <= values.min() < 1e-4
    assert 1 - 1e-4 < values.max() < 1
    # Standard errors of 200,000 draws: 0.00065 for the mean, 0.00017 for the variance.
    assert abs(values.mean() - 1 / 2) < 0.003
    assert abs(values.var() - 1 / 12) < 0.001
    counts, _ = np.histogram(values, 64, (0, 1))
    assert (((counts - 3125) ** 2) / 3125).sum() < 130, "chi-squared with 63 degrees of freedom"


def test_values_are_multiples_of_two_to_the_minus_24():
    scaled = uniform(9, np.arange(50), 50).astype(np.float64) * 2**24
    assert (scaled == np.rint(scaled)).all()


def test_columns_rows_and_purposes_are_independent():
    first = uniform(key(0, "x"), np.arange(20_000), 6).astype(np.float64)
    second = uniform(key(1, "x"), np.arange(20_000), 1).astype(np.float64)
    correlation = np.corrcoef(np.hstack([first, second]), rowvar=False)
    assert np.abs(correlation - np.eye(7)).max() < 0.035  # five standard errors of 20,000 pairs
    neighbours = np.corrcoef(first[:-1, 0], first[1:, 0])[0, 1]
    assert abs(neighbours) < 0.035


def test_an_order_is_a_permutation_that_depends_on_ids_alone():
    purpose = key(0, "shuffle")
    members = np.array([3, 8, 11, 40, 41, 99, 1000], np.int64)
    shuffled = order(purpose, members)
    assert sorted(shuffled) == members.tolist()
    np.testing.assert_array_equal(order(purpose, members[::-1]), shuffled)
    kept = members[members != 40]
    np.testing.assert_array_equal(order(purpose, kept), shuffled[shuffled != 40])
    assert order(key(1, "shuffle"), np.arange(50)).tolist() != order(purpose, np.arange(50)).tolist()


def test_every_place_is_equally_likely_in_an_order():
    places = np.array([np.flatnonzero(order(key(seed, "o"), np.arange(5)) == 2)[0] for seed in range(2000)])
    assert np.abs(np.bincount(places, minlength=5) - 400).max() < 90  # five standard errors
