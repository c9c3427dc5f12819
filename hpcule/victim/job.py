"""One victim to train: all that its result depends on, and a name for that."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from torch import nn

from hpcule.config.digest import digest
from hpcule.config.errors import DataError
from hpcule.config.tree import to_tree
from hpcule.config.version import __version__
from hpcule.data.source import Source
from hpcule.store.files import sha256_file
from hpcule.store.fingerprint import fingerprint
from hpcule.store.read import StoreReader
from hpcule.store.vault import MANIFEST
from hpcule.victim.config import VictimConfig
from hpcule.victim.keeper import Keeper
from hpcule.victim.kinds import Basis, Kind, noise_basis, task_of_store
from hpcule.victim.published import Published
from hpcule.victim.recipe import Recipe
from hpcule.victim.training import TrainedVictim, train_victim
from hpcule.victim.training_data import TrainingData
from hpcule.world.group import World


@dataclass(frozen=True)
class Fingerprints:
    """What victims see, by content: a digest of each part.

    Attributes:
        training: of the clean samples that are trained on, and their labels.
        test: of the test samples and their labels.
        store: of the store, or of what it is crafted from where it is not there yet.
        noise: of what the random-noise control depends on.
    """

    training: str
    test: str
    store: str = ""
    noise: str = ""

    @classmethod
    def of(cls, store: StoreReader, data: TrainingData, test: Source) -> Fingerprints:
        """Digests for victims of a complete store; reads all test samples."""
        manifest = store.manifest
        own = sha256_file(store.path / MANIFEST)
        basis = noise_basis(manifest.unit, manifest.budget, manifest.levels, task_of_store(manifest))
        return cls(
            training=digest(manifest.source.fingerprint, data.ids.tolist()),
            test=fingerprint_of(test),
            store=own,
            noise=own if basis is None else digest(basis),
        )


def fingerprint_of(source: Source) -> str:
    """SHA-256 of all samples of a source and their labels; reads them all."""
    return fingerprint(source, [(0, len(source))])


@dataclass(frozen=True)
class VictimJob:
    """One victim to train.

    Attributes:
        config: its settings, the countermeasures of its recipe among them.
        kind: of its training set.
        seed: of its first weights, order, augmentation, random noise and mixture.
    """

    config: VictimConfig
    kind: Kind
    seed: int

    @classmethod
    def of(cls, config: VictimConfig, recipe: Recipe, kind: Kind, seed: int) -> VictimJob:
        """The job of a recipe; a clean control is the same with and without a mixture."""
        return cls((recipe.whole if kind == "clean" else recipe).applied(config), kind, seed)

    def key(self, seen: Fingerprints) -> str:
        """Sixteen hexadecimal digits for all that the result depends on: settings, samples, store, weights, version.

        Raises:
            DataError: a file with weights that the settings name cannot be read.
        """
        basis = {"clean": "", "part": "", "noise": seen.noise}.get(self.kind, seen.store)
        weights = [_weights(path) for path in (self.config.checkpoint, self.config.purifier) if path]
        settings = to_tree(self.config)
        return digest(__version__, settings, weights, self.kind, self.seed, seen.training, seen.test, basis)

    def train(
        self,
        data: TrainingData,
        store: Basis | None,
        test: Published,
        world: World,
        report: Callable[[int, int], None] = lambda done, total: None,
        after_epoch: Callable[[int, nn.Module], None] = lambda epoch, network: None,
        keeper: Keeper | None = None,
    ) -> TrainedVictim:
        """Train the victim; see `train_victim`.

        Args:
            data: clean samples, and which of them count.
            store: whose perturbation they get; clean samples need none.
            test: clean samples of the same task.
            world: the ranks that train this one victim together.
            report: called with epochs done and in all.
            after_epoch: called with the number of epochs done and the network.
            keeper: keeps the training's state; None: nothing is kept.

        Raises:
            UsageError: the samples do not allow these settings.
            DivergedError: the network diverged.
            StoppedError: a signal has asked to stop; the state is saved.
        """
        config, train, owned = data.training_set(self.config, self.kind, store, self.seed)
        return train_victim(config, train, test, world, self.seed, report, owned, after_epoch, keeper)


def _weights(name: str) -> str:
    """Digest of a file with weights, or of all files of a folder of them."""
    path = Path(name)
    try:
        files = sorted(path.rglob("*")) if path.is_dir() else [path]
        found = [(file, file.stat()) for file in files if not file.is_dir()]
        return digest([_sha256(file, stat.st_size, stat.st_mtime_ns) for file, stat in found])
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}") from None


@lru_cache(maxsize=64)
def _sha256(path: Path, size: int, modified: int) -> str:
    """SHA-256 of a file that has this size and time of modification: a study names many victims of the same weights."""
    return sha256_file(path)
