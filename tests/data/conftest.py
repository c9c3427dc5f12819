import numpy as np
import pytest


@pytest.fixture
def make_images():
    """Random images [n, *shape] of one grid."""

    def make(*shape, dtype=np.uint8, seed=0):
        return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, endpoint=True).astype(dtype)

    return make
