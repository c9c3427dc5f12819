"""Networks trained alike on clean and on protected samples, with their weights after some epochs in files."""

from __future__ import annotations

import dataclasses
import io
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from hpcule.config.digest import digest
from hpcule.config.errors import DataError, StoreError
from hpcule.config.ranges import check_ranges, setting
from hpcule.config.run import WorldConfig
from hpcule.config.tree import to_tree
from hpcule.config.version import __version__
from hpcule.data.source import Source
from hpcule.evaluation.kept import Found, Kept, digests
from hpcule.measure.accuracy import chance_level, has_learnt
from hpcule.publish.carry import Publish
from hpcule.store.files import private_directory, sha256_file, write_atomically
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.read import StoreReader
from hpcule.store.vault import MANIFEST
from hpcule.victim.config import VictimConfig
from hpcule.victim.network import build_network
from hpcule.victim.published import Published, publisher
from hpcule.victim.supervised import train_network
from hpcule.victim.training_data import TrainingData, stratified
from hpcule.victim.training_schedule import TrainingSchedule
from hpcule.world.group import World

Basis = Literal["clean", "protected"]
BASES: tuple[Basis, ...] = ("clean", "protected")
Report = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class NetworksConfig:
    """Which networks are trained."""

    victim: VictimConfig = field(default_factory=VictimConfig)
    seed: int = 0
    samples: int | None = setting(None, at_least=1)
    """Train on so many samples; None: on all."""
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check ranges; a subclass adds the rules that connect several settings."""
        check_ranges(self)


class Networks:
    """One network a basis, of the same recipe and seed.

    Attributes:
        names: of the bases' files: digests of all that a network depends on.
        epochs: after which weights are kept, counted from 1.
        data: what is trained on, before it is published.
        withheld: ids of the samples that are not, in rising order.
        test: clean test samples.
    """

    def __init__(
        self,
        config: NetworksConfig,
        probes: int,
        store: StoreReader,
        source: Source,
        test: Source,
        out: Path,
        withhold: float = 0.0,
    ) -> None:
        """Take what the folder `networks` of `out` holds; weights are kept after `probes` epochs, evenly spread.

        Of every class the share `withhold` is not trained on.

        Raises:
            DataError: there are no labels to train with.
            UsageError: more samples asked for than there are.
        """
        if source.labels is None or test.labels is None:
            raise DataError(f"{source.name} has no labels: networks are trained with labels; use class folders")
        self.data = TrainingData.of(source, config.samples, config.world.resident_mebibytes * 2**20)
        self.withheld = stratified(self.data.ids, source.labels[self.data.ids], withhold, config.seed)
        self.data = dataclasses.replace(self.data, ids=np.setdiff1d(self.data.ids, self.withheld, assume_unique=True))
        self.test = Published(test, resident=self.data.resident)
        last = TrainingSchedule.of(config.victim, len(self.data.ids)).epochs
        self.epochs = sorted({max(1, round(last * (number + 1) / probes)) for number in range(probes)})
        self._config, self._store, self._chance = config, store, chance_level(test.labels)
        self._folder = out / "networks"
        samples, protected = digests(store, self.data.ids, test)
        basis = digest(to_tree(config.victim), config.seed, self.epochs, samples)
        self.names: dict[Basis, str] = {"clean": digest(basis), "protected": digest(basis, protected)}

    def facts(self, kind: str, trained: Mapping[Basis, Found]) -> dict[str, Any]:
        """What results.json of every measure on these networks begins with."""
        source, manifest = self.data.source, self._store.manifest
        numbers = {"train": len(self.data.ids), "test": len(self.test), "chance": self._chance}
        return {
            "kind": kind,
            "hpcule": __version__,
            "status": "done" if has_learnt(trained["clean"]["last"], self._chance) else "invalid",
            "data": {"name": source.name, **numbers},
            "method": manifest.method,
            "store": sha256_file(self._store.path / MANIFEST),
            "reduced": manifest.reduced,
            "settings": {**to_tree(self._config), "world": None},
        }

    def train(self, world: World, report: Report) -> dict[Basis, Found]:
        """Train those that are not there, a rank each, and return what they reached.

        Raises:
            StoreError: the store was made for other samples, or a file is damaged.
        """
        if world.leads:
            require_same_samples(self._store.manifest, self.data.source)
        config = self._config

        def train(basis: Basis, number: int, count: int) -> Found:
            def progress(done: int, total: int) -> None:
                report(f"network, {basis}", number * total + done, count * total)

            def keep(epoch: int, network: nn.Module) -> None:
                if epoch in self.epochs:
                    buffer = io.BytesIO()
                    torch.save(network.state_dict(), buffer)
                    private_directory(self._folder)
                    write_atomically(self._weights(basis, epoch), buffer.getvalue())

            samples = self.data.published(self.publish(basis), "plain", config.seed)
            result = train_network(config.victim, samples, self.test, world.alone(), config.seed, progress, keep)[1]
            return {"last": result.last.test, "train": result.last.train, "seconds": result.seconds}

        return Kept(self._folder).complete({basis: self.names[basis] for basis in BASES}, world, train)

    def publish(self, basis: Basis) -> Publish:
        """What becomes of a clean sample there."""
        return publisher(basis, self._store, self._config.seed, self.data.source)

    def load(self, basis: Basis, epoch: int, device: torch.device) -> nn.Module:
        """A network as it was after an epoch, in evaluation mode.

        Raises:
            StoreError: its file is damaged.
        """
        network = build_network(self._config.victim, self.data.source, self._config.seed, device)
        path = self._weights(basis, epoch)
        try:
            network.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise StoreError(f"{path}: {error}; delete the folder {path.parent} to train it again") from None
        return network.eval()

    def _weights(self, basis: Basis, epoch: int) -> Path:
        return self._folder / f"{self.names[basis]}-{epoch:04}.pt"
