"""One victim by itself."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hpcule.config.errors import DataError
from hpcule.config.run import WorldConfig
from hpcule.config.tree import dump_yaml, to_tree
from hpcule.config.version import __version__
from hpcule.data.check import check_same_task
from hpcule.data.open import open_source, open_test
from hpcule.publish.carry import publishing
from hpcule.store.files import private_directory, to_json, write_atomically
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault
from hpcule.victim.config import VictimConfig
from hpcule.victim.published import Published, clean
from hpcule.victim.run import train_victim
from hpcule.world.group import World


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One training."""

    victim: VictimConfig = field(default_factory=VictimConfig)
    seed: int = 0
    world: WorldConfig = field(default_factory=WorldConfig)


def train(
    config: TrainConfig,
    data: str,
    test: str | None,
    vault: Vault | None,
    out: Path,
    world: World,
    report: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Train a victim on DATA, or on DATA as a store protects it, and write results.json and config.yaml to `out`.

    Raises:
        DataError: there are no labels, or training and test samples do not belong to one task.
    """
    reader = StoreReader(vault) if vault else None
    opening = reader.manifest.opening if reader else {}
    source, test_source = open_source(data, **opening), open_test(data, test, **opening)
    check_same_task(source, test_source)
    if reader and world.leads:
        require_same_samples(reader.manifest, source)
    if source.labels is None:
        raise DataError(f"{source.name} has no labels to train a victim with")
    resident = config.world.resident_mebibytes * 2**20
    samples = Published(source, publishing(reader, source) if reader else clean, resident=resident)
    _, result = train_victim(
        config.victim,
        samples,
        Published(test_source, resident=resident),
        world,
        config.seed,
        lambda done, total: report("training", done, total),
    )
    results = {
        "kind": "train",
        "hpcule": __version__,
        "data": source.name,
        "protected": vault is not None,
        "workers": world.size,
        "last": result.last.test,
        "best": result.best.test,
        "best_epoch": result.best.epoch,
        **dataclasses.asdict(result),
    }
    if world.leads:
        private_directory(out)
        write_atomically(out / "results.json", to_json(results))
        write_atomically(out / "config.yaml", dump_yaml(to_tree(config)).encode())
    return results
