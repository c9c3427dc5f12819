"""Files that a thread writes are the same, are there when they should be, and tell what befell them."""

from __future__ import annotations

import shutil

import pytest

from hpcule.config.errors import StoreError
from hpcule.store.behind import WriteBehind
from hpcule.store.vault import Vault
from hpcule.store.write import begin, finish, finished_shards


def contents(store):
    """Bytes by name."""
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("settings", [{}, {"unit": "cluster", "groups": 5}], ids=["sample", "cluster"])
def test_the_store_is_the_one_that_is_written_file_by_file(settings, make_source, make_manifest, make_store, tmp_path):
    source, planned = make_source(), make_manifest(make_source(), **settings)
    store, _, delta, group = make_store(source, **settings)
    begin(Vault(tmp_path / "other"), planned)
    with WriteBehind(Vault(tmp_path / "other"), planned) as writer:
        for index, entry in enumerate(planned.shards):
            rows = slice(entry.first, entry.first + entry.count)
            given = delta[rows].copy() if group is None else group[rows].copy()
            writer.shard(index, source.labels[rows], **{"delta" if group is None else "group": given})
            # It was taken, and may be used again.
            given[...] = 99
        if group is not None:
            writer.shared(delta)
    finish(Vault(tmp_path / "other"), planned)
    assert contents(tmp_path / "other") == contents(store)


def test_what_was_given_is_there_after_a_wait(make_source, make_manifest, draw_delta, tmp_path):
    source, planned = make_source(), make_manifest(make_source())
    delta = draw_delta(source, planned)
    begin(Vault(tmp_path), planned)
    with WriteBehind(Vault(tmp_path), planned) as writer:
        for index, entry in enumerate(planned.shards[:3]):
            rows = slice(entry.first, entry.first + entry.count)
            writer.shard(index, source.labels[rows], delta=delta[rows])
            writer.wait()
            assert finished_shards(Vault(tmp_path), planned) == set(range(index + 1))
        writer.wait()


def test_the_next_file_or_the_end_tells_what_befell_one(make_source, make_manifest, draw_delta, tmp_path):
    source, planned = make_source(), make_manifest(make_source())
    delta, store = draw_delta(source, planned), tmp_path / "store"
    first, second = (slice(entry.first, entry.first + entry.count) for entry in planned.shards[:2])
    begin(Vault(store), planned)
    shutil.rmtree(store / "shards")
    writer = WriteBehind(Vault(store), planned)
    writer.shard(0, source.labels[first], delta=delta[first])
    with pytest.raises(StoreError, match="00000-of"):
        writer.shard(1, source.labels[second], delta=delta[second])
    with pytest.raises(StoreError, match="00000-of"), writer:
        writer.shard(0, source.labels[first], delta=delta[first])


def test_an_error_of_the_owner_is_not_hidden_by_one_of_the_disk(make_source, make_manifest, draw_delta, tmp_path):
    source, planned = make_source(), make_manifest(make_source())
    delta, store = draw_delta(source, planned), tmp_path / "store"
    rows = slice(planned.shards[0].first, planned.shards[0].first + planned.shards[0].count)
    begin(Vault(store), planned)
    shutil.rmtree(store / "shards")

    def fail():
        with WriteBehind(Vault(store), planned) as writer:
            writer.shard(0, source.labels[rows], delta=delta[rows])
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
