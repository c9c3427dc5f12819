"""Who takes part in a tournament: methods, each with the strengths at which it is tried."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from hpcule.config.errors import UsageError
from hpcule.config.run import BoundedConfig, Preset, WorldConfig
from hpcule.config.tree import unknown
from hpcule.craft.measured import expected_order
from hpcule.craft.table import METHODS, find, usable
from hpcule.data.opening import Opening
from hpcule.data.source import Source
from hpcule.evaluation.suites import EvaluateConfig, suite_config
from hpcule.victim.config import VictimConfig
from hpcule.victim.recipe import Recipe


def candidates() -> tuple[str, ...]:
    """Methods for images that need no checkpoint: first those of which records expect most, then the cheapest."""
    methods, _ = usable()
    fit = [name for name, method in methods.items() if method.facts.data == "images"]
    return tuple(sorted((name for name in fit if not methods[name].facts.needs_checkpoint), key=expected_order))


@dataclass(frozen=True, kw_only=True)
class RecommendConfig(Opening):
    """How the samples are opened, which methods take part, and how they are measured."""

    methods: tuple[str, ...] = field(default_factory=candidates)
    """Methods in the order in which they are tried; those at the end may not be reached."""
    levels: tuple[float, ...] = (16.0, 8.0)
    """Strengths at which methods are tried that bound the change of a value, in levels of 255. All take part at the
    largest, the best one at the others too."""
    preset: Preset = "small"
    samples: int = 1000
    """Number of samples to craft for and train on, spread evenly over the data; all where there are fewer."""
    victim: VictimConfig = field(default_factory=lambda: VictimConfig(network="resnet-tiny", steps=300, batch=64))
    recipes: tuple[Recipe, ...] = ()
    """Attackers. None: those of the suite `clinic`."""
    seeds: tuple[int, ...] = (0,)
    world: WorldConfig = field(default_factory=WorldConfig)

    def __post_init__(self) -> None:
        """Check ranges and names."""
        super().__post_init__()
        if self.subset is not None:
            raise ValueError(f"subset={self.subset}: recommend takes samples={self.samples} of the data; set samples")
        for name in self.methods:
            if name not in METHODS:
                raise UsageError(unknown("method", name, METHODS))
        if not self.methods or len(set(self.methods)) < len(self.methods):
            raise ValueError(f"methods={list(self.methods)}: at least one, and none twice")
        if not self.levels or not all(1 <= level <= 127 for level in self.levels):
            raise ValueError(f"levels={list(self.levels)}: at least one, each of 1 to 127")
        if self.recipes:
            self._evaluation(self.recipes)

    def evaluation(self, source: Source) -> EvaluateConfig:
        """How stores of these samples are measured."""
        if self.recipes:
            return self._evaluation(self.recipes)
        suite = suite_config("clinic", source, {})
        return replace(self._evaluation(suite.recipes), left_out=suite.left_out)

    def _evaluation(self, recipes: tuple[Recipe, ...]) -> EvaluateConfig:
        return EvaluateConfig(victim=self.victim, recipes=recipes, seeds=self.seeds, world=self.world)


@dataclass(frozen=True)
class Candidate:
    """A method, and its budget in levels of 255 where it bounds the change of a value."""

    method: str
    level: float | None

    @property
    def name(self) -> str:
        """Name of its store: `pil-16`."""
        return self.method if self.level is None else f"{self.method}-{self.level:g}"

    @classmethod
    def strongest(cls, config: RecommendConfig) -> list[Candidate]:
        """All methods at their largest budget."""
        bounded = {name: issubclass(find(name).config_class, BoundedConfig) for name in config.methods}
        return [cls(name, max(config.levels) if bounded[name] else None) for name in config.methods]

    def weaker(self, config: RecommendConfig) -> list[Candidate]:
        """The same method at smaller budgets, the largest first."""
        levels = sorted(set(config.levels), reverse=True)
        return [Candidate(self.method, level) for level in levels if self.level is not None and level < self.level]

    def settings(self, source: Source) -> list[str]:
        """What its craft sets."""
        return [] if self.level is None else [f"method.epsilon={self.level * source.levels / 255:g}"]
