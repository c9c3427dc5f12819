import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

MEASURE = """
import sys
from pathlib import Path
import numpy as np
from hpcule.data.sources import mapped
from hpcule.data.sources.npz import open_npz
mapped.KEPT_BYTES = int(sys.argv[2]) << 20
def file_mib():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssFile")) >> 10
source, before = open_npz(Path(sys.argv[1]), "all"), file_mib()
most = 0
for first in range(64):
    assert (source.read(np.array([first])) == first).all()
    most = max(most, file_mib())
print(most - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to tell mapped files from own memory")
def test_pages_of_a_mapped_file_do_not_pile_up(tmp_path):
    images = np.zeros((64, 1 << 10, 1 << 10), np.uint8) + np.arange(64, dtype=np.uint8)[:, None, None]
    np.savez(tmp_path / "set.npz", images=images)
    grown = {}
    for limit in (20, 4096):
        command = [sys.executable, "-c", MEASURE, tmp_path / "set.npz", str(limit)]
        grown[limit] = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert grown[20] < 20
    assert grown[4096] > 50
