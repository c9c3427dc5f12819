"""A writer that is killed at any moment, and a resume, end with the same bytes."""

from __future__ import annotations

import pickle
import random
import shutil
import subprocess
import sys
import time

from hpcule.store.manifest import read_manifest
from hpcule.store.vault import Vault
from hpcule.store.verify import verify

WRITER = """
import pickle, sys
from pathlib import Path
from hpcule.store.vault import Vault
from hpcule.store.write import begin, finish, finished_shards, prepare_shard, put
store, arguments = Vault(Path(sys.argv[1])), Path(sys.argv[2])
manifest, labels, delta = pickle.loads(arguments.read_bytes())
print("ready", flush=True)
begin(store, manifest)
done = finished_shards(store, manifest)
for index, entry in enumerate(manifest.shards):
    if index not in done:
        rows = slice(entry.first, entry.first + entry.count)
        put(store, manifest, prepare_shard(manifest, index, labels[rows], delta=delta[rows]))
finish(store, manifest)
"""


def contents(store):
    return {str(path.relative_to(store)): path.read_bytes() for path in sorted(store.rglob("*")) if path.is_file()}


def start(store, arguments):
    process = subprocess.Popen([sys.executable, "-c", WRITER, str(store), str(arguments)], stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"ready\n"
    return process


def test_killed_writers(make_source, make_manifest, draw_delta, tmp_path):
    source = make_source(3000, shape=(3, 16, 16))
    planned = make_manifest(source, shards=12)
    arguments = tmp_path / "arguments"
    arguments.write_bytes(pickle.dumps((planned, source.labels, draw_delta(source, planned))))

    with start(whole := tmp_path / "whole", arguments) as process:
        began = time.monotonic()
        process.stdout.read()
        duration = time.monotonic() - began
    assert process.returncode == 0
    expected = contents(whole)

    draw, killed, kills = random.Random(0), tmp_path / "killed", 0
    for _ in range(8):
        with start(killed, arguments) as process:
            time.sleep(draw.uniform(0, 0.8 * duration))
            process.kill()
        kills += process.returncode == -9
        if (killed / "manifest.json").exists() and read_manifest(Vault(killed)).complete:
            assert contents(killed) == expected
            shutil.rmtree(killed)
        elif (killed / "manifest.json").exists():
            assert [problem.kind for problem in verify(Vault(killed))] == ["incomplete"]
    assert kills >= 2
    with start(killed, arguments) as process:
        process.stdout.read()
    assert process.returncode == 0
    assert contents(killed) == expected
    assert verify(Vault(killed), source) == []
