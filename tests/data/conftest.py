import os
from pathlib import Path

import numpy as np
import pytest


@pytest.fixture
def real_data():
    """Folder with real data sets; a test names the one it needs."""
    root = Path(os.environ.get("HPCULE_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))

    def find(relative):
        if not (root / relative).exists():
            pytest.skip(f"{relative} is not in {root} (HPCULE_TEST_DATA names another folder)")
        return root / relative

    return find


@pytest.fixture
def make_images():
    """Random images [n, *shape] of one grid."""

    def make(*shape, dtype=np.uint8, seed=0):
        return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)

    return make
