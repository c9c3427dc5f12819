"""UC: unlearnable clusters (Zhang, Ma, Yi, Sang, Jiang, Wang, Xu; CVPR 2023, arXiv 2301.01217).

Label-agnostic: samples are clustered by the features of a frozen encoder, and for each cluster k one generator is
trained whose output, added to any sample, moves its features onto the centre of cluster k + 1. All samples of a
cluster share one delta.

    L_k = mean over samples of KL(softmax(centre) || softmax(f(clip(x + delta_k, 0, 1))))

Delta does not depend on the data, so only dL/d delta is reduced over the ranks of a cluster's group; the generator's
own forward and backward are the same on each of them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from hpcule.config.ranges import setting
from hpcule.config.run import BoundedConfig, MethodConfig
from hpcule.craft.method import (
    Event,
    Facts,
    Method,
    Problem,
    Saved,
    Settings,
    ShardResult,
    SharedResult,
    State,
    Step,
    Unit,
    finite,
)
from hpcule.craft.parts.cluster_delta import ClusterDelta
from hpcule.craft.parts.cluster_features import ClusterFeatures, features_phase, kmeans_phase
from hpcule.craft.parts.cluster_generator import Bound, ClusterGenerator
from hpcule.craft.parts.encoded import Encoded, EncoderConfig
from hpcule.craft.parts.kmeans import Integers
from hpcule.craft.work import Extent, Phase, Walk, Work
from hpcule.data.schedule import LINE_BYTES, Schedule
from hpcule.data.source import Source
from hpcule.nets.encoder import load_encoder
from hpcule.store.checkpoint import PartState
from hpcule.world.gradient_norms import GradientNorms
from hpcule.world.group import World
from hpcule.world.keyed import key

GENERATOR_WEIGHTS = 7_841_411
"""Parameters for three channels; a checkpoint has Adam's two moments in addition."""


@dataclass(frozen=True, kw_only=True)
class UCConfig(EncoderConfig, BoundedConfig):
    """Defaults are the authors' for Oxford-IIIT Pets, but for the encoder."""

    name: str = "uc"
    epsilon: float = 16.0
    clusters: int = setting(10, at_least=2)
    """Clusters, and shared deltas: each cluster is moved onto another one's centre."""
    cluster_size: int | None = setting(None, at_least=32)
    """Samples are resized to this height and width to be clustered; None: to encoder_size, as for crafting."""
    bound: Bound = "clamp"
    """What keeps the generator's output, a tanh, in the budget: cut off, as the authors do, or shrunk."""
    direct: bool = False
    """Signed steps on the deltas themselves, without generators."""
    step_size: float | None = setting(None, above=0)
    """Levels of such a step; None: epsilon / 10."""
    epochs: int = setting(50, at_least=0)
    """Passes over all samples of a generator's training."""
    steps: int | None = setting(None, at_least=0)
    """Generator steps a cluster; None: as many as `epochs` give. 0 publishes untrained generators (a control)."""
    batch: int = setting(256, at_least=1)
    """Samples of a training step, over all workers of a cluster."""
    learning_rate: float = setting(1e-4, above=0)
    """Learning rate of Adam, cosine to 1e-6 a step."""
    weight_decay: float = setting(5e-4, at_least=0)
    """Weight decay, coupled: added to the gradient."""
    fit_on: Literal["all", "cluster"] = "all"
    """Train a cluster's generator on all samples, as the authors' code does, or on its own, as their formula says."""
    target_offset: int = 1
    """Distance from a cluster to the one whose centre it is moved onto; no multiple of the clusters."""

    def __post_init__(self) -> None:
        """Check ranges, and that no cluster is moved onto itself."""
        super().__post_init__()
        if self.target_offset % self.clusters == 0:
            raise ValueError(f"target_offset={self.target_offset}: must not be a multiple of clusters")


class UnlearnableClusters(Method[UCConfig]):
    """One generator a cluster; clusters in parallel first, then the samples of a cluster's batches."""

    facts: ClassVar[Facts] = Facts(
        title="UC: unlearnable clusters",
        data="images",
        task="any classification of the samples, labels unknown",
        intent="availability",
        needs_labels=False,
        bounded=True,
        needs_surrogate=True,
        claimed="other labels than the owner's, other architectures, at 224 pixels and many victim steps",
        paper="arXiv 2301.01217",
        cost="50 noise passes a cluster through the encoder, and one forward for the features",
        weaknesses="protects only as far as clusters predict an attacker's labels; a shared delta can be averaged out; "
        "at 32 pixels no better than a random pattern a cluster",
        needs_checkpoint=True,
    )
    config_class: ClassVar[type[MethodConfig]] = UCConfig
    loss: ClassVar[str | None] = "divergence"
    presets: ClassVar[Mapping[str, Settings]] = {
        "small": {"encoder_size": 64, "cluster_size": 192, "steps": 60, "batch": 64},
        "smoke": {"encoder_size": 64, "steps": 8, "batch": 32, "clusters": 4},
    }

    def __init__(self, config: UCConfig, problem: Problem) -> None:
        self.config = config
        self.problem = problem
        self.encoded = _encoded(config, problem)
        large = dataclasses.replace(config, encoder_size=_cluster_size(config))
        same = large.encoder_size == config.encoder_size
        self.found = ClusterFeatures(problem, self.encoded, None if same else _encoded(large, problem))
        self.number, self.group = problem.world.split(config.clusters)
        self.group_count = min(config.clusters, problem.world.size)
        self.centers: Tensor | None = None
        self.sizes: list[int] = []  # samples of each cluster
        self.assignment: dict[int, Integers] = {}
        """Cluster of every sample of this rank's shards, by shard."""
        self.progress = dict.fromkeys(range(config.clusters), 0)
        """Steps done, of every cluster, on all ranks."""
        self.deltas: dict[int, Tensor] = {}
        """Deltas of this group's finished clusters, in units of [0, 1]."""
        self.paused: dict[int, PartState] = {}
        """Generator states of this group's clusters that an interrupted run had begun."""
        self.current: ClusterGenerator | ClusterDelta | None = None

    @classmethod
    def unit(cls, config: UCConfig) -> Unit:
        """Name the unit that shares a delta: the cluster."""
        return "cluster"

    @classmethod
    def untrained(cls, config: UCConfig) -> UCConfig:
        """Generators as they were born; what training is set to goes back to the defaults, for it has no meaning."""
        training = ("epochs", "batch", "learning_rate", "weight_decay", "fit_on", "target_offset", "augment")
        defaults = {name: getattr(UCConfig(), name) for name in training}
        return dataclasses.replace(config, **defaults, steps=0)

    @classmethod
    def groups(cls, config: UCConfig, source: Source) -> int:
        """One delta a cluster."""
        return config.clusters

    @classmethod
    def work(cls, config: UCConfig, extent: Extent) -> Work:
        """Features by shard, K-means, and each cluster's generator in one group of ranks."""
        groups = min(config.clusters, extent.workers)
        # Clusters of own samples, and the order of those that a rank of a group reads; where the ghosts lie.
        memory = 8.0 * extent.own_samples + 16.0 * extent.samples / (extent.workers // groups)
        memory += LINE_BYTES * extent.samples / config.ghost
        notes = ["K-means is taken to need as many iterations as in the calibration"]
        checkpoint = 8.0 * extent.samples + groups * 3 * 4 * GENERATOR_WEIGHTS
        if config.fit_on == "cluster":
            memory += extent.samples + 8.0 * extent.samples / config.clusters
            notes.append("clusters are taken to be equally large")
        larger = 0.0 if _cluster_size(config) == config.encoder_size else _cluster_size(config) / config.encoder_size
        features = features_phase(extent, config.ghost, larger)
        clusters = kmeans_phase(extent, config.clusters, shared=config.fit_on == "cluster")
        phases = (features, clusters, _generators(config, extent, groups))
        return Work(phases=phases, memory=memory, checkpoint=checkpoint, shared=config.clusters, notes=tuple(notes))

    @classmethod
    def trial(cls, config: UCConfig, batch: int, workers: int) -> UCConfig:
        """Three steps of at most two clusters a group: the second one shows what a new generator takes."""
        return type(config)(
            clusters=min(config.clusters, 2 * workers),
            encoder=config.encoder,
            checkpoint=config.checkpoint,
            encoder_size=config.encoder_size,
            cluster_size=config.cluster_size,
            steps=3,
            batch=batch,
            ghost=config.ghost,
            augment=config.augment,
            direct=config.direct,
        )

    def notes_steps(self, world: World) -> bool:
        """Whether this rank leads the group of a cluster."""
        return self.group.leads

    def run(self) -> Iterator[Event]:
        """Cluster; train the generators; collect their deltas."""
        if self.centers is None:
            for turn in range(self.problem.rounds):
                if turn < len(self.problem.owned):
                    self.found.add(self.problem.owned[turn])
                yield Step("features", turn + 1, self.problem.rounds)
            self._cluster()
            yield Step("clusters", 1, 1)
        yield from self._train()
        yield SharedResult(self._collect())
        for shard in self.problem.owned:
            if shard not in self.problem.done:
                yield ShardResult(shard, group=self.assignment[shard])

    def state(self) -> State:
        """Centres, the clusters of own samples, every cluster's progress, and what our group has trained."""
        shared = {"centers": self.centers, "sizes": self.sizes, "progress": self.progress}
        parts: dict[str, Mapping[str, object]] = {
            _shard_part(shard): {"clusters": torch.from_numpy(np.ascontiguousarray(clusters))}
            for shard, clusters in self.assignment.items()
        }
        if self.group.leads:
            parts |= {_part(k): {"delta": delta} for k, delta in self.deltas.items()}
            parts |= {_part(k): {"training": training} for k, training in self.paused.items()}
            if self.current is not None:
                parts[_part(self.current.cluster)] = {"training": self.current.state()}
        return State(shared, parts)

    def restore(self, saved: Saved) -> None:
        """Restore the clusters and what is there of our group's generators, whoever trained them."""
        shared = saved.load("shared")
        if shared["centers"] is not None:
            self.centers = shared["centers"].to(self.problem.world.device)
            self.assignment = {s: saved.load(_shard_part(s))["clusters"].numpy() for s in self.problem.owned}
        self.sizes, self.progress = shared["sizes"], shared["progress"]
        for cluster in self._queue(self.number):
            if _part(cluster) in saved.names:
                part = saved.load(_part(cluster))
                if "delta" in part:
                    self.deltas[cluster] = part["delta"].to(self.problem.world.device)
                else:
                    self.paused[cluster] = part["training"]

    def _cluster(self) -> None:
        found = self.found.clusters(self.config.clusters, key(self.problem.seed, "uc clusters"))
        self.centers = torch.from_numpy(found.centers).float().to(self.problem.world.device)
        self.assignment, self.sizes = found.assignment, found.sizes.tolist()

    def _train(self) -> Iterator[Event]:
        """Every group works through its clusters; all ranks yield as often as the busiest group has steps."""
        clusters = self._clusters() if self.config.fit_on == "cluster" else None
        lengths = {cluster: self._length(cluster) for cluster in self.progress}
        queues = [self._queue(number) for number in range(self.group_count)]
        total = max(sum(lengths[k] - self.progress[k] for k in queue) for queue in queues)
        begun, schedule = -1, None
        for done in range(1, total + 1):
            figures: dict[str, float] = {}
            norms, batches = None, []
            for number, queue in enumerate(queues):
                cluster = next((k for k in queue if self.progress[k] < lengths[k]), None)
                if cluster is None:
                    continue
                if number == self.number:
                    if schedule is None or begun != cluster:
                        begun, schedule = cluster, self._schedule(cluster, clusters)
                    figures, norms = self._step(cluster, schedule, lengths[cluster])
                    batches = [norms.samples]
                self.progress[cluster] += 1
            yield Step("generators", done, total, figures, norms, batches)

    def _queue(self, number: int) -> list[int]:
        """The clusters of a group, in order."""
        return list(range(number, self.config.clusters, self.group_count))

    def _clusters(self) -> Integers:
        """Cluster of every sample [N], on all ranks, in the smallest integers that hold it."""
        count, partition, device = len(self.problem.source), self.problem.partition, self.problem.world.device
        clusters = torch.zeros(count, dtype=torch.uint8 if self.config.clusters <= 256 else torch.int32, device=device)
        for shard, part in self.assignment.items():
            first, size = partition.range(shard)
            clusters[first : first + size] = torch.from_numpy(part)
        return self.problem.world.add(clusters).cpu().numpy()

    def _schedule(self, cluster: int, clusters: Integers | None) -> Schedule:
        """The batches of a cluster's generator; `clusters` says which samples it is trained on, None: on all."""
        partition, members = self.problem.partition, None
        if clusters is not None:
            ranges = map(partition.range, range(partition.count))
            members = [first + np.flatnonzero(clusters[first : first + size] == cluster) for first, size in ranges]
        config, seed = self.config, self.problem.seed
        return Schedule(members or partition, config.ghost, config.batch, seed, f"uc {cluster}")

    def _length(self, cluster: int) -> int:
        """Steps of a cluster's generator."""
        if self.config.steps is not None:
            return self.config.steps
        samples = self.sizes[cluster] if self.config.fit_on == "cluster" else len(self.problem.source)
        return -(-samples // self.config.batch) * self.config.epochs

    def _step(self, cluster: int, schedule: Schedule, length: int) -> tuple[dict[str, float], GradientNorms]:
        if self.current is None:
            self.current = self._generator(cluster)
        step = self.progress[cluster]
        delta = self.current.delta()
        purpose = key(self.problem.seed, "uc augment", cluster, step // schedule.steps)
        batch = schedule.at(step)
        assert self.centers is not None
        goal = (cluster + self.config.target_offset) % self.config.clusters
        gradient, measures, norms = self.encoded.gradient(
            delta.detach(), self.centers, goal, batch, purpose, self.group
        )
        rate = 1e-6 + (self.config.learning_rate - 1e-6) * 0.5 * (1 + math.cos(math.pi * step / length))
        self.current.update(delta, gradient, rate)
        figures = {"cluster": cluster, "step": step, **measures, "saturated": self.current.saturated}
        if step + 1 == length:
            self.deltas[cluster] = self.current.delta().detach()
            self.current = None
        return figures, norms

    def _generator(self, cluster: int) -> ClusterGenerator | ClusterDelta:
        levels, config, shape = self.problem.source.levels, self.config, self.problem.source.shape
        seed, device, epsilon = self.problem.seed, self.problem.world.device, config.epsilon / levels
        generator: ClusterGenerator | ClusterDelta
        if config.direct:
            size = (config.step_size or config.epsilon / 10) / levels
            generator = ClusterDelta(cluster, shape, epsilon=epsilon, step_size=size, seed=seed, device=device)
        else:
            bound, decay = config.bound, config.weight_decay
            generator = ClusterGenerator(
                cluster, shape, epsilon=epsilon, bound=bound, weight_decay=decay, seed=seed, device=device
            )
        if cluster in self.paused:
            generator.restore(self.paused.pop(cluster))
        return generator

    def _collect(self) -> Any:
        """All clusters' deltas in levels int32 [p, C, H, W], on every rank."""
        source, device = self.problem.source, self.problem.world.device
        collected = torch.zeros(self.config.clusters, *source.shape, dtype=torch.int32, device=device)
        bound = int(self.config.epsilon)
        for cluster in self._queue(self.number):
            delta = self.deltas.get(cluster)
            if delta is None:
                delta = self._generator(cluster).delta().detach()
            if self.group.leads:
                collected[cluster] = (finite(delta) * source.levels).round().to(torch.int32).clamp_(-bound, bound)
        return self.problem.world.add(collected).cpu().numpy()


def _cluster_size(config: UCConfig) -> int:
    return config.cluster_size or config.encoder_size


def _encoded(config: UCConfig, problem: Problem) -> Encoded:
    checkpoint = Path(config.checkpoint) if config.checkpoint else None
    return Encoded(config, problem, load_encoder(config.encoder, checkpoint, input_size=config.encoder_size))


def _part(cluster: int) -> str:
    return f"cluster-{cluster:05d}"


def _shard_part(shard: int) -> str:
    return f"shard-{shard:05d}"


def _generators(config: UCConfig, extent: Extent, groups: int) -> Phase:
    """The smallest group with most clusters; the ranks of a group share out each batch, and each of them runs the
    generator itself."""
    samples = extent.samples if config.fit_on == "all" else math.ceil(extent.samples / config.clusters)
    walk = Walk.of(samples, min(extent.shards, samples), config.ghost, config.batch)
    length = config.epochs * walk.batches if config.steps is None else config.steps
    clusters = -(-config.clusters // groups)
    steps = clusters * length
    ranks = extent.workers // groups
    return Phase(
        stage="generators",
        marks=steps,
        passes=steps * walk.busiest(ranks) / walk.batches,
        calls=steps,
        starts=clusters if length else 0,
        # The gradient, and the loss, the squared norms of single samples' gradients and the moved samples, float64.
        sums=2 * steps if ranks > 1 else 0,
        sum_bytes=(extent.addend * extent.values + 24) / 2,
        ranks=ranks,
        busy=groups * min(ranks, walk.ghosts_a_batch),
    )
