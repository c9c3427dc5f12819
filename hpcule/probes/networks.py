"""Networks trained in the same way on clean and on protected samples, with their weights after some epochs in files."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import nn

from hpcule.config.digest import digest
from hpcule.config.errors import DataError, StoreError, UsageError, first_line
from hpcule.config.ranges import check_ranges, setting
from hpcule.config.run import WorldConfig
from hpcule.config.tree import Tree, to_tree
from hpcule.config.version import __version__
from hpcule.data.source import Ids
from hpcule.evaluation.bench import Bench
from hpcule.measure.accuracy import Headline, has_learnt
from hpcule.probes.documents import Basis, NetworksDocument
from hpcule.publish.carry import Publish
from hpcule.store.files import private_directory, sha256_file, write_atomically
from hpcule.store.fingerprint import require_same_samples
from hpcule.store.vault import MANIFEST
from hpcule.victim.config import VictimConfig
from hpcule.victim.countermeasures.fitted import fitted_steps
from hpcule.victim.job import Fingerprints, VictimJob
from hpcule.victim.kept import Kept
from hpcule.victim.kinds import native_publisher, publisher
from hpcule.victim.network import build_network
from hpcule.victim.published import Published
from hpcule.victim.reading import ReadingSteps
from hpcule.victim.result import VictimResult
from hpcule.victim.testing import measured
from hpcule.victim.training_data import TrainingData, stratified
from hpcule.victim.training_schedule import TrainingSchedule

BASES: tuple[Basis, ...] = get_args(Basis)


@dataclass(frozen=True, kw_only=True)
class NetworksConfig:
    """Which networks are trained."""

    victim: VictimConfig = field(default_factory=VictimConfig)
    seed: int = 0
    samples: int | None = setting(None, at_least=1)
    """Number of samples to train on; None: all."""
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check ranges; a subclass adds the rules that connect several settings."""
        check_ranges(self)


@dataclass(frozen=True)
class TrainedNetwork:
    """What a network reached in its last epoch: the headline measure on test samples, and accuracy in training."""

    last: float
    train: float
    seconds: float


class Networks:
    """One network a basis, of the same recipe and seed.

    Attributes:
        bench: the store that the protected network's samples come from, and what it is measured with.
        names: of the bases' files: digests of all that a network depends on.
        epochs: after which weights are kept, counted from 1.
        data: what is trained on, before it is published.
        withheld: ids of the samples that are not, in rising order.
        test: clean test samples.
        headline: the measure on these that stands for what a network has learnt.
    """

    def __init__(self, config: NetworksConfig, probes: int, bench: Bench, withhold: float = 0.0) -> None:
        """Take what the folder `networks` of the bench holds; weights are kept after `probes` epochs, evenly spread.

        Of every class the share `withhold` is not trained on.

        Raises:
            DataError: there are no labels to train with.
            UsageError: more samples asked for than there are, another task than one label, or countermeasures that
                these networks cannot have.
        """
        own = config.victim.countermeasures.at("mixture", "features", "after")
        if own:
            raise UsageError(
                f"victim.countermeasures={own[0]}: these networks learn as a whole, from one kind of samples"
            )
        apart = fitted_steps(config.victim.countermeasures)
        if apart:
            raise UsageError(
                f"victim.countermeasures={apart[0]}: these networks are asked about the same images, and this step is "
                "fitted to the training set of each: leave it out"
            )
        if config.victim.task != "label":
            raise UsageError(
                f"victim.task={config.victim.task}: certificates, distances, recovery and stripping are for one label: "
                "leave it out; `hpcule evaluate --tasks` compares tasks"
            )
        source, test = bench.source, bench.test
        if source.labels is None or test.labels is None:
            raise DataError(
                f"{source.name} has no class for each sample, and these networks learn one label: use class folders"
            )
        self.data = TrainingData.of(source, config.samples, config.world.resident_mebibytes * 2**20)
        self.withheld = stratified(self.data.ids, source.classes(self.data.ids), withhold, config.seed)
        self.data = dataclasses.replace(self.data, ids=np.setdiff1d(self.data.ids, self.withheld, assume_unique=True))
        self.test = Published(test, resident=self.data.resident)
        last = TrainingSchedule.of(config.victim, len(self.data.ids)).epochs
        self.epochs = sorted({max(1, round(last * (number + 1) / probes)) for number in range(probes)})
        self.bench = bench
        self._config, self.headline = config, Headline.of(test.labels)
        self._folder = bench.out / "networks"
        seen = Fingerprints.of(bench.store, self.data, test)
        self.names = {basis: digest(self._job(basis).key(seen), self.epochs, self.headline.measure) for basis in BASES}

    def facts(self, trained: Mapping[Basis, TrainedNetwork]) -> NetworksDocument:
        """What the results of every measure on these networks hold."""
        store = self.bench.store
        manifest = store.manifest
        return {
            "hpcule": __version__,
            "status": "done" if has_learnt(trained["clean"].last, self.headline.chance) else "invalid",
            "measure": self.headline.measure,
            "effective": self.headline.effective,
            "data": {
                "name": self.bench.source.name,
                "train": len(self.data.ids),
                "test": len(self.test),
                "chance": self.headline.chance,
            },
            "method": manifest.method,
            "store": sha256_file(store.path / MANIFEST),
            "reduced": manifest.reduced,
        }

    def settings(self) -> Tree:
        """The settings of the measure, but for the ranks', on which no result depends."""
        return {**to_tree(self._config), "world": None}

    def train(self) -> dict[Basis, TrainedNetwork]:
        """Train those that are not there, a rank each, and return what they reached.

        Raises:
            StoreError: the store was made for other samples, or a file is damaged.
        """
        world, store = self.bench.world, self.bench.store
        if world.leads:
            require_same_samples(store.manifest, self.data.source)

        def train(basis: Basis, number: int, count: int) -> TrainedNetwork:
            def progress(done: int, total: int) -> None:
                self.bench.report(f"network, {basis}", number * total + done, count * total)

            def keep(epoch: int, network: nn.Module) -> None:
                if epoch in self.epochs:
                    buffer = io.BytesIO()
                    torch.save(network.state_dict(), buffer)
                    private_directory(self._folder)
                    write_atomically(self._weights(basis, epoch), buffer.getvalue())

            job, alone = self._job(basis), world.alone()
            keeper = kept.keeper(self.names[basis], alone)
            result = job.train(self.data, store, self.test, alone, progress, keep, keeper).result
            return TrainedNetwork(self.reached(result), result.last.train, result.seconds)

        kept = Kept.of(self._folder, TrainedNetwork)
        return kept.complete({basis: self.names[basis] for basis in BASES}, world, train)

    def reached(self, result: VictimResult) -> float:
        """The headline measure of a victim after its last epoch."""
        return result.last.measures[self.headline.measure]

    def measure(self, network: nn.Module, *, fast: bool = False) -> float:
        """The headline measure of a network in evaluation mode, which reads test samples as the attacker does."""
        return measured(network, self.read_test, self.bench.world, fast=fast)[self.headline.measure]

    def publish(self, basis: Basis) -> Publish:
        """What becomes of a clean sample there."""
        return publisher(basis, self.bench.store, self._config.seed, self.data.source)

    def published(self, basis: Basis, ids: Ids) -> Published:
        """These samples as they are published there."""
        source, resident = self.data.source, self.data.resident
        native = partial(native_publisher, basis, self.bench.store, self._config.seed, source)
        return Published(source, self.publish(basis), ids=ids, resident=resident, native=native)

    def read(self, published: Published) -> ReadingSteps:
        """How the attacker reads images, in steps that are not fitted to any: those given, for one."""
        return ReadingSteps(published, self._config.victim, self._config.seed, self.bench.world.alone())

    @cached_property
    def read_test(self) -> Published:
        """Test samples as the attacker reads them."""
        return self.read(self.test).for_test(self.test)

    def load(self, basis: Basis, epoch: int) -> nn.Module:
        """A network as it was after an epoch, in evaluation mode.

        Raises:
            StoreError: its file is damaged.
        """
        device = self.bench.world.device
        network = build_network(self._config.victim, self.read_test, self._config.seed, device)
        path = self._weights(basis, epoch)
        try:
            network.load_state_dict(torch.load(path, map_location=device, weights_only=True))
        except Exception as error:  # torch raises whatever its zip reader and its unpickler do
            raise StoreError(
                f"{path}: {first_line(error)}; delete the folder {path.parent} to train it again"
            ) from None
        return network.eval()

    def _job(self, basis: Basis) -> VictimJob:
        return VictimJob(self._config.victim, basis, self._config.seed)

    def _weights(self, basis: Basis, epoch: int) -> Path:
        return self._folder / f"{self.names[basis]}-{epoch:04}.pt"
