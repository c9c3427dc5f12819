from __future__ import annotations

import numpy as np
import pytest
from sklearn.cluster import KMeans

from hpcule.config.errors import DataError
from hpcule.craft.parts import kmeans as kmeans_module
from hpcule.craft.parts.kmeans import _Lloyd, kmeans
from hpcule.data.partition import Partition


def blobs(n=300, dimension=6, centers=5, spread=1.0, seed=0):
    rng = np.random.default_rng(seed)
    means = rng.normal(0, 4, (centers, dimension))
    return means[rng.integers(0, centers, n)] + rng.normal(0, spread, (n, dimension))


def dealt(features, shards, world):
    """A rank's own shards: features and first ids."""
    cut = Partition(len(features), shards)
    owned = {shard: features[cut.ids(shard)] for shard in cut.owned(world.rank, world.size)}
    return owned, {shard: cut.range(shard)[0] for shard in owned}


def cluster(world, features, clusters, shards=4, seed=0):
    """Centres, assignment of own shards, sizes."""
    found = kmeans(*dealt(features, shards, world), clusters, world, seed)
    return found.centers, found.assignment, found.sizes


def joined(*assignments):
    every = {shard: part for assignment in assignments for shard, part in assignment.items()}
    return np.concatenate([every[shard] for shard in sorted(every)])


def lloyd(world, features, shards=1):
    largest = float(np.abs(features).max())
    return _Lloyd(*dealt(features, shards, world), world, len(features), largest)


@pytest.mark.parametrize("spread", [0.5, 3.0, 8.0])
@pytest.mark.parametrize("shards", [1, 7])
def test_equals_scikit_learns_lloyd_from_the_same_start(alone, spread, shards):
    features = blobs(spread=spread)
    start = features[[0, 40, 80, 120, 160]]
    steps = lloyd(alone, features, shards)
    found = steps.canonical(steps.iterate(start.copy()))
    theirs = KMeans(5, init=start, n_init=1, algorithm="lloyd").fit(features)
    order = found.centers[:, None, :] - theirs.cluster_centers_[None]
    number = np.square(order).sum(2).argmin(0)  # their number -> ours
    assert sorted(number) == list(range(5))
    np.testing.assert_array_equal(joined(found.assignment), number[theirs.labels_])
    np.testing.assert_allclose(found.centers[number], theirs.cluster_centers_, rtol=0, atol=1e-9)


@pytest.mark.parametrize("clusters", [5, 10, 20])
@pytest.mark.parametrize("spread", [0.5, 2.0, 8.0])
def test_inertia_is_within_a_hundredth_of_scikit_learns_best_of_ten_starts(alone, clusters, spread):
    features = blobs(n=500, dimension=8, centers=10, spread=spread)
    centers, assignment, _ = cluster(alone, features, clusters)
    inertia = np.square(features - centers[joined(assignment)]).sum()
    theirs = KMeans(clusters, n_init=10, random_state=0).fit(features)
    assert inertia <= 1.01 * theirs.inertia_
    assert lloyd(alone, features, 4).inertia(centers) == pytest.approx(inertia)


def test_clusters_are_numbered_by_size_then_by_lowest_id(alone):
    #        id: 0  1   2   3  4   5   6   7
    features = np.array([[5.0], [9.0], [0.0], [0.1], [5.1], [9.1], [0.2], [20.0]])
    centers, assignment, sizes = cluster(alone, features, 4)
    assert sizes.tolist() == [3, 2, 2, 1]
    assert joined(assignment).tolist() == [1, 2, 0, 0, 1, 2, 0, 3]
    np.testing.assert_allclose(centers[:, 0], [0.1, 5.05, 9.05, 20.0])
    for seed in range(1, 6):
        assert joined(cluster(alone, features, 4, seed=seed)[1]).tolist() == [1, 2, 0, 0, 1, 2, 0, 3]


@pytest.mark.parametrize("shards", [2, 5])
def test_two_ranks_and_one_find_the_same_bits(pool, alone, shards):
    features = blobs(n=211, spread=3.0)
    centers, assignment, sizes = cluster(alone, features, 5, shards)
    answers = pool.run(cluster, features, 5, shards)
    np.testing.assert_array_equal(joined(*(answer[1] for answer in answers)), joined(assignment))
    for answer in answers:
        assert answer[0].tobytes() == centers.tobytes()
        assert answer[2].tolist() == sizes.tolist()


def test_initial_centres_are_distinct_samples_and_depend_on_the_seed(alone):
    features = blobs(n=40)
    starts = [lloyd(alone, features, 3).plus_plus(6, seed) for seed in range(20)]
    for start in starts:
        assert len(np.unique(start, axis=0)) == 6
        assert all((features == center).all(1).any() for center in start)
    assert len({start.tobytes() for start in starts}) == 20
    np.testing.assert_array_equal(lloyd(alone, features, 3).plus_plus(6, 7), starts[7])


def test_initial_centres_are_drawn_by_squared_distance(alone):
    # From a first centre at 0, the samples at 1 and 3 have masses 1 and 9; from 3, those at 0 and 1 have 9 and 4, ...
    features = np.array([[0.0], [1.0], [3.0]])
    pairs = [tuple(lloyd(alone, features).plus_plus(2, seed)[:, 0]) for seed in range(3000)]
    firsts = [np.mean([pair[0] == first for pair in pairs]) for first in (0, 1, 3)]
    assert np.abs(np.array(firsts) - 1 / 3).max() < 0.045  # five standard errors
    for first, expected in ((0, {1: 0.1, 3: 0.9}), (1, {0: 0.2, 3: 0.8}), (3, {0: 9 / 13, 1: 4 / 13})):
        seconds = [pair[1] for pair in pairs if pair[0] == first]
        for second, share in expected.items():
            assert abs(np.mean([value == second for value in seconds]) - share) < 0.08


@pytest.mark.parametrize("iterations", [1, 300])
def test_an_empty_cluster_takes_the_farthest_sample(alone, monkeypatch, iterations):
    # The third centre is nobody's nearest. The farthest sample is at 8; its donor keeps the others.
    monkeypatch.setattr(kmeans_module, "ITERATIONS", iterations)
    features = np.array([[0.0], [1.0], [2.0], [8.0], [20.0], [21.0]])
    start = np.array([[1.0], [20.0], [1000.0]])
    steps = lloyd(alone, features, 2)
    found = steps.canonical(steps.iterate(start))
    assert joined(found.assignment).tolist() == [0, 0, 0, 2, 1, 1]
    theirs = KMeans(3, init=start, n_init=1, algorithm="lloyd", max_iter=iterations).fit(features)
    np.testing.assert_allclose(sorted(found.centers[:, 0]), sorted(theirs.cluster_centers_[:, 0]))


def test_an_empty_cluster_may_take_the_only_sample_of_another(alone):
    # The farthest sample, 100, is alone in its cluster.
    features = np.array([[0.0], [1.0], [2.0], [100.0]])
    steps = lloyd(alone, features, 2)
    found = steps.canonical(steps.iterate(np.array([[1.0], [90.0], [1000.0]])))
    assert np.isfinite(found.centers).all()
    assert found.sizes.sum() == 4
    assert (found.sizes > 0).all()


def test_several_clusters_may_be_empty(alone):
    features = blobs(n=60, centers=3)
    start = np.vstack([features[:2], np.full((3, 6), 1e3) + np.arange(3)[:, None]])
    steps = lloyd(alone, features, 4)
    found = steps.canonical(steps.iterate(start))
    assert (found.sizes > 0).all()
    assert np.isfinite(found.centers).all()


def test_as_many_clusters_as_distinct_samples(alone):
    features = np.repeat(np.array([[1.0, 0], [2, 0], [3, 5]]), [4, 2, 3], axis=0)
    centers, assignment, sizes = cluster(alone, features, 3, shards=2)
    assert sizes.tolist() == [4, 3, 2]
    assert centers.tolist() == [[1, 0], [3, 5], [2, 0]]
    assert joined(assignment).tolist() == [0] * 4 + [2] * 2 + [1] * 3


@pytest.mark.parametrize("value", [0.0, 3.5])
def test_too_few_distinct_samples_are_refused(alone, value):
    features = np.full((10, 3), value)
    features[5:] += 1
    with pytest.raises(DataError, match="3 clusters asked for, but there are only 2 distinct samples"):
        cluster(alone, features, 3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("row", [0, 150, 299])
def test_features_that_are_not_finite_are_refused(alone, value, row):
    features = blobs()
    features[row, 2] = value
    with pytest.raises(DataError, match="features are not finite"):
        cluster(alone, features, 3)


def refused(world, features):
    try:
        cluster(world, features, 3)
    except DataError as error:
        return str(error)
    return "taken"


@pytest.mark.parametrize("row", [0, 100, 299])
def test_every_rank_refuses_what_one_rank_holds(pool, row):
    features = blobs()
    features[row] = np.nan
    assert pool.run(refused, features) == ["the encoder's features are not finite"] * 2


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_of_the_features_does_not_matter(alone, scale):
    features = blobs(spread=3.0)
    expected = joined(cluster(alone, features, 4)[1])
    np.testing.assert_array_equal(joined(cluster(alone, features * scale, 4)[1]), expected)
