import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from toys import ToySource

from hpcule.data.working import working_file

PICKS = [[0], [49], [3, 1, 2], [4, 5, 6, 30], [7, 7, 7], list(range(50)), []]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rows_come_by_number_and_are_made_once(dtype):
    source = ToySource(50, (3, 6, 5), dtype=dtype)
    made = []
    read = source.read
    source.read = lambda ids: made.extend(ids.tolist()) or read(ids)
    file = working_file(source)
    for _ in range(2):
        for pick in PICKS:
            ids = np.array(pick, np.int64)
            np.testing.assert_array_equal(file.read(ids), source.samples[ids])
            assert file.read(ids).dtype == dtype
    assert sorted(made) == list(range(50))


FULL = """
import logging, resource, sys
import numpy as np
from toys import ToySource
from hpcule.data.working import working_file
logging.basicConfig(level=logging.WARNING, stream=sys.stdout)
source = ToySource(50, (3, 64, 64))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
file = working_file(source)
for _ in range(2):
    for ids in ([1, 2], [48, 2, 1], [0, 30], list(range(50))):
        assert (file.read(np.array(ids)) == source.samples[ids]).all()
print("right")
"""


def test_where_the_disk_is_full_it_makes_rows_anew():
    tests = str(Path(__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([tests, *filter(None, [os.environ.get("PYTHONPATH")])])}
    result = subprocess.run([sys.executable, "-c", FULL], capture_output=True, text=True, check=True, env=environment)
    assert result.stdout.count("set TMPDIR to a larger folder") == 1
    assert result.stdout.endswith("right\n")
