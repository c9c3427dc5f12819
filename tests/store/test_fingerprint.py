from __future__ import annotations

import numpy as np
import pytest

import hpcule.data.annotations as annotations
import hpcule.store.fingerprint as module
from hpcule.data.annotations import ArrayMasks, LabelMatrix
from hpcule.store.fingerprint import blocks, combine, fingerprint, shard_digest

RANGES = [(0, 20), (20, 1), (21, 29)]


@pytest.mark.parametrize("classes", [0, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_streaming_equals_the_shards_digests(make_source, monkeypatch, dtype, classes):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 700)
    source = make_source(50, dtype=dtype, classes=classes)
    digests = [shard_digest(source.samples[first : first + count], source, first) for first, count in RANGES]
    assert fingerprint(source, RANGES) == combine(digests, source.shape, source.levels)


def test_blocks_cover_a_shard_once(make_source, monkeypatch):
    monkeypatch.setattr(module, "_BLOCK_BYTES", 700)
    source = make_source(50)
    found = list(blocks(source, 3, 40))
    assert len(found) > 3
    np.testing.assert_array_equal(np.concatenate([ids for ids, _ in found]), np.arange(3, 43))
    np.testing.assert_array_equal(np.concatenate([samples for _, samples in found]), source.samples[3:43])


def test_the_order_in_memory_does_not_matter(make_source):
    source = make_source()
    assert shard_digest(np.asfortranarray(source.samples), source, 0) == shard_digest(source.samples, source, 0)


def test_several_labels_and_masks_count_where_labels_do(make_source, monkeypatch):
    monkeypatch.setattr(annotations, "_BLOCK", 7)
    source = make_source()
    values, masks = np.zeros((50, 3), np.int8), np.zeros((50, *source.shape[1:]), np.uint8)
    masks[0, 0, 0] = 1
    seen, unlabelled = [fingerprint(source, RANGES)], {fingerprint(source, RANGES, labelled=False)}
    source.label_matrix, source.masks = LabelMatrix(values, ("a", "b", "c")), ArrayMasks(masks)
    for change in (values, masks.reshape(50, -1)):
        seen.append(fingerprint(source, RANGES))
        change[41, 2] = 1
    seen.append(fingerprint(source, RANGES))
    unlabelled.add(fingerprint(source, RANGES, labelled=False))
    assert len(set(seen)) == 4
    assert len(unlabelled) == 1
    digests = [shard_digest(source.samples[first : first + count], source, first) for first, count in RANGES]
    assert combine(digests, source.shape, source.levels) == seen[-1]


def test_every_change_is_seen(make_source):
    source = make_source()
    seen = {fingerprint(source, RANGES), fingerprint(source, [(0, 50)])}
    source.samples[33, 1, 2, 3] ^= 1
    seen.add(fingerprint(source, RANGES))
    source.labels[7] += 1
    seen.add(fingerprint(source, RANGES))
    source.labels = None
    seen.add(fingerprint(source, RANGES))
    source.samples = source.samples[[1, 0, *range(2, 50)]]
    seen.add(fingerprint(source, RANGES))
    source.samples = source.samples.reshape(50, 3, 5, 6)
    source.shape = (3, 5, 6)
    seen.add(fingerprint(source, RANGES))
    source.samples = source.samples.astype(np.uint16)
    source.levels = 65535
    seen.add(fingerprint(source, RANGES))
    assert len(seen) == 8
