"""What the tests of all rooms share."""

import os
import signal
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
# The helper modules beside this file (pool, toys): test modules import them, in this process and in the pool's.
sys.path.insert(0, str(HERE))
pytest_plugins = ["results", "stores"]


def pytest_configure(config):
    # torch.fx's fusion of convolution and BatchNorm imports a module of torch that warns of itself.
    config.addinivalue_line("filterwarnings", "ignore:.torch.jit.script_method. is deprecated:DeprecationWarning")
    # A shell in the background ignores SIGINT, and so would all commands that are started and interrupted here.
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Small tensors gain nothing from threads, and sums keep their order."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _gpu(request):
    """Skip what is marked gpu where there is none."""
    import torch

    if request.node.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("torch sees no CUDA device: make test-gpu on a machine that has one")


@pytest.fixture(scope="session")
def pool():
    """Two gloo processes; `pool.run(function, *arguments)` gives the results of both ranks."""
    from pool import Pool

    with Pool() as ranks:
        yield ranks


@pytest.fixture(scope="session")
def trio():
    """Three gloo processes, for what two cannot show: a group of several ranks beside another group."""
    from pool import Pool

    with Pool(3) as ranks:
        yield ranks


@pytest.fixture
def alone():
    """A world of one process."""
    import toys

    return toys.alone()


@pytest.fixture(scope="session")
def real_data():
    """Find real data by its path inside the folder of test data, or skip."""
    root = Path(os.environ.get("HPCULE_TEST_DATA", HERE.parents[1] / "shared" / "data"))

    def find(relative):
        if not (root / relative).exists():
            pytest.skip(f"{relative} is not in {root} (HPCULE_TEST_DATA names another folder)")
        return root / relative

    return find
