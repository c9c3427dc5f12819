"""Networks trained alike on clean and on protected samples, with their weights after some epochs in files."""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from hpcule import __version__
from hpcule.config.errors import StoreError
from hpcule.config.tree import to_tree
from hpcule.data.source import Source
from hpcule.store.files import private_directory, sha256_file, write_atomically
from hpcule.store.fingerprint import fingerprint
from hpcule.store.manifest import MANIFEST
from hpcule.store.read import StoreReader
from hpcule.study.grid import digest
from hpcule.study.kept import Found, Kept
from hpcule.victim.config import VictimConfig
from hpcule.victim.network import build_network
from hpcule.victim.published import Publish, Published, clean
from hpcule.victim.schedule import Schedule
from hpcule.victim.train import train_network
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World

Basis = Literal["clean", "protected"]
BASES: tuple[Basis, ...] = ("clean", "protected")
Report = Callable[[str, int, int], None]


class Networks:
    """One network a basis, of the same recipe and seed.

    Attributes:
        names: of the bases' files: digests of all that a network depends on.
        epochs: after which weights are kept, counted from 1.
        test: clean test samples.
    """

    def __init__(
        self,
        victim: VictimConfig,
        seed: int,
        probes: int,
        store: StoreReader,
        data: TrainingData,
        test: Source,
        out: Path,
    ) -> None:
        """Take what the folder `networks` of `out` holds; keep weights after `probes` epochs, evenly spread."""
        last = Schedule.of(victim, len(data.ids)).epochs
        self.epochs = sorted({max(1, round(last * (number + 1) / probes)) for number in range(probes)})
        self.test = Published(test, resident=data.resident)
        self._victim, self._seed, self._store, self._data = victim, seed, store, data
        self._folder = out / "networks"
        facts = (store.manifest.source.fingerprint, fingerprint(test, [(0, len(test))]), data.ids.tolist())
        basis = digest(__version__, to_tree(victim), seed, self.epochs, facts)
        store_digest = sha256_file(store.path / MANIFEST)
        self.names: dict[Basis, str] = {"clean": digest(basis), "protected": digest(basis, store_digest)}

    def train(self, world: World, report: Report) -> dict[Basis, Found]:
        """Train those that are not there, a rank each, and return what they reached."""

        def train(basis: Basis, number: int, count: int) -> Found:
            def progress(done: int, total: int) -> None:
                report(f"network, {basis}", number * total + done, count * total)

            def keep(epoch: int, network: nn.Module) -> None:
                if epoch in self.epochs:
                    buffer = io.BytesIO()
                    torch.save(network.state_dict(), buffer)
                    private_directory(self._folder)
                    write_atomically(self._weights(basis, epoch), buffer.getvalue())

            samples = self._data.published(self.publish(basis), "plain", self._seed)
            result = train_network(self._victim, samples, self.test, world.alone(), self._seed, progress, keep)[1]
            return {"last": result.last.test, "train": result.last.train, "seconds": result.seconds}

        return Kept(self._folder).complete({basis: self.names[basis] for basis in BASES}, world, train)

    def publish(self, basis: Basis) -> Publish:
        """What becomes of a clean sample there."""
        return self._store.published if basis == "protected" else clean

    def load(self, basis: Basis, epoch: int, device: torch.device) -> nn.Module:
        """A network as it was after an epoch, in evaluation mode.

        Raises:
            StoreError: its file is damaged.
        """
        network = build_network(self._victim, self._data.source, self._seed, device)
        path = self._weights(basis, epoch)
        try:
            network.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        except (OSError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError) as error:
            raise StoreError(f"{path}: {error}; delete the folder {path.parent} to train it again") from None
        return network.eval()

    def _weights(self, basis: Basis, epoch: int) -> Path:
        return self._folder / f"{self.names[basis]}-{epoch:04}.pt"
