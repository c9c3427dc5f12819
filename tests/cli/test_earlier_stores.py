"""A store that an earlier version wrote, with settings that methods no longer have."""

import numpy as np
import pytest

from hpcule.config.tree import to_tree
from hpcule.craft.table import configure
from hpcule.data.opening import Opening

GONE = {"unit": "sample", "max_rounds": 1, "stop_error": -1.0, "subset": 0.2}


@pytest.fixture
def earlier(make_store, tmp_path):
    """DATA, the store, and its deltas."""
    rng = np.random.default_rng(0)
    data = tmp_path / "data.npz"
    np.savez(data, images=rng.integers(0, 256, (50, 8, 8, 3), dtype=np.uint8), labels=np.arange(50) % 3)
    source = Opening().source(str(data))
    config = to_tree(configure("tap", str(data), preset="smoke", file={}, overrides=[]))
    del config["world"], config["data"]
    config |= {"precision": "fp32", "method": config["method"] | GONE}
    store, _, delta, _ = make_store(source, method="tap", config=config, seed=0)
    return data, store, delta


def test_it_is_verified_and_exported(earlier, run, tmp_path):
    data, store, delta = earlier
    assert run("verify", store, "--data", data)[0] == 0
    code, _, err = run("export", store, "--data", data, "--out", tmp_path / "copy")
    assert code == 0, err
    (copy,) = (tmp_path / "copy").glob("*.npz")
    published = np.load(copy)["images"].astype(int) - np.load(data)["images"]
    np.testing.assert_array_equal(published.transpose(0, 3, 1, 2), delta)


def test_who_wants_to_resume_it_is_told_why_that_is_not_possible(earlier, run):
    data, store, _ = earlier
    words = ["craft", "tap", "--data", data, "--out", store, "--preset", "smoke", "--resume"]
    code, _, err = run(*words, "--set", "precision=fp32")
    assert code == 1
    assert "belongs to another run" in err
    assert "begun by another version, hpcule 0.1.0" in err
    assert "method.max_rounds" in err


def test_its_settings_say_what_to_leave_out(earlier, run, tmp_path):
    data, _, _ = earlier
    (tmp_path / "config.yaml").write_text("method: {name: tap, epsilon: 4, subset: 0.2}\n")
    arguments = ["craft", "tap", "--data", data, "--out", tmp_path / "new", "--config", tmp_path / "config.yaml"]
    code, _, err = run(*arguments)
    assert code == 2
    assert "method.subset: earlier versions had this setting, without any effect: leave it out" in err
