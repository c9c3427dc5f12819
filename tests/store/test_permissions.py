"""Whether a store is its owner's alone, told from its folder."""

from __future__ import annotations

import subprocess

import pytest

from hpcule.store.permissions import exposed, exposed_paths


@pytest.mark.parametrize("mode", [0o755, 0o750, 0o705, 0o710, 0o701, 0o720, 0o704])
def test_an_open_folder_is_reported_and_the_remedy_closes_it(make_source, make_store, mode):
    store, *_ = make_store(make_source())
    assert exposed(store) is None
    store.chmod(mode)
    message = exposed(store)
    assert f"mode {mode:04o}" in message
    subprocess.run(message.partition(": ")[2].split(), check=True)
    assert exposed(store) is None
    assert exposed_paths(store) == []


def test_a_link_is_as_open_as_what_it_leads_to(make_source, make_store, tmp_path):
    store, *_ = make_store(make_source())
    link = tmp_path / "link"
    link.symlink_to(store)
    assert exposed(link) is None
    store.chmod(0o755)
    assert exposed(link) is not None


def test_all_that_others_may_read_is_listed(make_source, make_store):
    store, manifest, *_ = make_store(make_source())
    open_ones = [store / "run", store / "run" / "shard-00001.json", store / manifest.shards[2].file]
    for path in open_ones:
        path.chmod(0o755 if path.is_dir() else 0o640)
    (store / "run" / "elsewhere").symlink_to("/etc")
    assert exposed_paths(store) == sorted(open_ones)


def test_a_folder_that_holds_no_store_is_none_of_our_business(tmp_path):
    tmp_path.chmod(0o755)
    assert exposed(tmp_path) is None
    assert exposed(tmp_path / "absent") is None
