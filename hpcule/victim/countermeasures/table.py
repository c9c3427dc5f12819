"""What a victim does to undo a protection, as a table of named steps, and the steps of one victim."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown

Stage = Literal["mixture", "samples", "test", "set", "crop", "batch", "labels", "network", "few", "features", "after"]
EARLY = 0.25
"""Share of the steps in which UEraser is adversarial: 50 of 200 epochs."""


@dataclass(frozen=True)
class Countermeasure:
    """One step.

    Attributes:
        stage: takes a `mixture` of published and clean samples; acts once on each of the published `samples`; has
            `test` samples go the same way; is fitted to the whole `set`; draws a random `crop` of every sample; acts
            again on every `batch`, on a batch and its `labels`, or on the `network`; makes do with `few` labels; learns
            `features` before classes; or acts `after` training.
        title: in reports; {} stands for the strength.
        default, lowest, highest: of the strength; None where the step has none.
        whole: the strength is a whole number.
        versions: of every sample, drawn to learn from the one with the largest loss.
        early: more than one version in the first quarter of the steps alone.
        reads: it is how the attacker reads every image: test samples go through it too.
        by_class: it goes by labels, so that test samples never go through it.
        window: it displays stored values, so that no other step can have changed them.
    """

    stage: Stage
    title: str
    default: float | None = None
    lowest: float = 0
    highest: float = 0
    whole: bool = True
    versions: int = 1
    early: bool = False
    reads: bool = False
    by_class: bool = False
    window: bool = False


COUNTERMEASURES: Mapping[str, Countermeasure] = {
    "window": Countermeasure(
        "samples",
        "each image in its own window, {}% cut off at each end",
        0.5,
        0,
        49,
        whole=False,
        reads=True,
        window=True,
    ),
    "set-window": Countermeasure(
        "samples", "one window for the set, {}% cut off at each end", 0.5, 0, 49, whole=False, reads=True, window=True
    ),
    "lung-window": Countermeasure("samples", "lung window", reads=True, window=True),
    "soft-tissue-window": Countermeasure("samples", "soft-tissue window", reads=True, window=True),
    "bone-window": Countermeasure("samples", "bone window", reads=True, window=True),
    "grayscale": Countermeasure("samples", "grayscale"),
    "jpeg": Countermeasure("samples", "JPEG at quality {}", 10, 1, 100),
    "bit-depth": Countermeasure("samples", "{} bits a value", 2, 1, 7),
    "blur": Countermeasure("samples", "Gaussian blur of {} pixels", 1, 0.3, 10, whole=False),
    "lowpass": Countermeasure("samples", "lowest {}% of the frequencies", 30, 1, 99, reads=True),
    "zscore": Countermeasure("samples", "standardised one by one", reads=True),
    "equalize": Countermeasure("samples", "histogram equalisation", reads=True),
    "diffusion": Countermeasure("samples", "{} steps of a diffusion model and back", 100, 1, 1000),
    "rebuild": Countermeasure("samples", "rebuilt by a trained network"),
    "dvae": Countermeasure("samples", "D-VAE with {} nats a place", 3, 0.5, 20, whole=False, by_class=True),
    "class-means": Countermeasure("samples", "class means subtracted", by_class=True),
    "wiener": Countermeasure("samples", "Wiener filter by class", by_class=True),
    "notch": Countermeasure("samples", "bands taken out that tell classes apart", reads=True),
    "fitted-lowpass": Countermeasure("samples", "shortest waves taken out that tell classes apart", reads=True),
    "equal-bands": Countermeasure("samples", "equal energies of bands", reads=True),
    "denoise": Countermeasure("samples", "denoiser fitted to {} originals", 100, 2, 100_000),
    "size": Countermeasure("samples", "read at {0} x {0} pixels", 64, 16, 1024, reads=True),
    "test-too": Countermeasure("test", "test images as well"),
    "projection": Countermeasure("set", "orthogonal projection"),
    "cutout": Countermeasure("batch", "cutout of {}% of the width", 50, 1, 100),
    "resize": Countermeasure("batch", "shrunk at random to {}% or more and back", 50, 5, 99),
    "coin": Countermeasure("batch", "every pixel drawn from up to {} pixels away (COIN)", 2, 0.5, 10, whole=False),
    "gamma": Countermeasure("batch", "random gamma of 0.7 to 1.5"),
    "noise": Countermeasure("batch", "Gaussian noise of {} levels", 13, 1, 127),
    "affine": Countermeasure("batch", "rotated by up to {} degrees and scaled", 15, 1, 180),
    "contrast": Countermeasure("batch", "random brightness and contrast"),
    "sharpen": Countermeasure("batch", "sharpened at random"),
    "random-grayscale": Countermeasure("batch", "{}% of the images in grayscale at random", 40, 1, 100),
    "ueraser-lite": Countermeasure("batch", "UEraser-lite"),
    "ueraser": Countermeasure("batch", "UEraser", versions=5, early=True),
    "ueraser-max": Countermeasure("batch", "UEraser-max", versions=5),
    "mixup": Countermeasure("labels", "mixup"),
    "cutmix": Countermeasure("labels", "cutmix"),
    "adversarial": Countermeasure("network", "adversarial training, radius {}", 4, 1, 32),
    "fixmatch": Countermeasure("few", "FixMatch with {} labels a class", 25, 1, 100_000),
    "dfr": Countermeasure("after", "last layer fitted again to {}% clean", 10, 0.1, 90, whole=False),
    "fine-tune": Countermeasure("network", "fine-tuned from trained weights"),
    "freeze": Countermeasure("network", "first {}% of the trained tensors frozen", 50, 1, 99),
    "adapters": Countermeasure("network", "low-rank adapters of rank {}", 8, 1, 256),
    "linear-probe": Countermeasure("features", "linear layer on a trained encoder"),
    "simclr": Countermeasure("features", "features by SimCLR in {} epochs", 100, 1, 2000),
    "moco": Countermeasure("features", "features by MoCo v2 in {} epochs", 100, 1, 2000),
    "byol": Countermeasure("features", "features by BYOL in {} epochs", 100, 1, 2000),
    "simsiam": Countermeasure("features", "features by SimSiam in {} epochs", 100, 1, 2000),
    "supcl": Countermeasure("features", "features by supervised contrast in {} epochs", 100, 1, 2000),
}
"""Default strengths: of grayscale, JPEG and bit depth those of image shortcut squeezing (Liu, Zhao, Larson; ICML 2023,
arXiv 2301.13868); cutout's square of 16 pixels in 32; COIN's severity 4;
the radius of adversarial training in levels of 255. A blur of 0.1 pixels, as benchmarks have it,
is the identity, and refused."""
PARTIAL = ("freeze", "adapters")
"""Steps that leave trained tensors as they are."""
STEPS: Mapping[str, Countermeasure] = {
    "crop-flip": Countermeasure("crop", "random crop and flip"),
    "speed": Countermeasure("crop", "mirrored shifts and alternating flips"),
    **COUNTERMEASURES,
    "mix": Countermeasure("mixture", "{}% protected, the rest clean"),
}
"""Everything that `victim.countermeasures` and recipes take."""


@dataclass(frozen=True)
class Applied:
    """A countermeasure with its strength."""

    name: str
    strength: float | None

    @property
    def stage(self) -> Stage:
        """Part of the training in which the step acts; see `Countermeasure`."""
        return STEPS[self.name].stage

    def versions(self, progress: float) -> int:
        """Number of versions of every sample that the step tries after this share of the steps, in [0, 1]."""
        kind = STEPS[self.name]
        return 1 if kind.early and progress >= EARLY else kind.versions

    @property
    def title(self) -> str:
        """Name of the step in reports."""
        title = STEPS[self.name].title
        if self.strength is None:
            return title
        return title.format(f"{self.strength * (100 if self.name == 'mix' else 1):g}")

    def __str__(self) -> str:
        """The step as users write it: `cutout-50`."""
        return self.name if self.strength is None else f"{self.name}-{Decimal(str(self.strength)).normalize():f}"


@dataclass(frozen=True)
class Countermeasures:
    """The steps of one victim, in the order in which they act; without any it trains plainly."""

    steps: tuple[Applied, ...] = ()

    @classmethod
    def parse(cls, value: object) -> Countermeasures:
        """Read a list of steps, or a text of steps joined with `+`; `plain` stands for none.

        Raises:
            UsageError: a step is unknown, has a strength that it cannot have, is there twice, or does not go with
                another one.
        """
        names = value.split("+") if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise UsageError(f"{value}: expected a list of steps, for example [crop-flip, jpeg-10]")
        if list(names) == ["plain"]:
            return cls()
        return cls(tuple(map(countermeasure, names)))

    def written(self) -> list[str]:
        """The list that `parse` reads."""
        return [str(step) for step in self.steps]

    def __post_init__(self) -> None:
        """Refuse steps that do not go together, with UsageError."""
        names = [step.name for step in self.steps]
        if len(set(names)) < len(names):
            raise UsageError(f"{self}: a step is there twice")
        if self.mix is not None and self.refit:
            raise UsageError(f"{self}: a victim either mixes clean samples in, or fits its last layer to them")
        kinds = [STEPS[step.name] for step in self.at("samples")]
        if self.named("test-too") and all(kind.reads or kind.by_class for kind in kinds):
            raise UsageError(
                f"{self}: test images go through all steps that they can go through anyway; test-too goes with a step "
                "that else changes training images only, as in jpeg-50+test-too"
            )
        partial = [name for name in names if name in PARTIAL]
        if partial and not self.named("fine-tune"):
            raise UsageError(f"{self}: {partial[0]} goes with trained weights, as in fine-tune+{partial[0]}")
        if len(partial) > 1:
            raise UsageError(f"{self}: adapters freeze all trained tensors; leave {partial[0]} or {partial[1]} out")
        late = [step for step in self.at("samples")[1:] if STEPS[step.name].window]
        if late:
            raise UsageError(
                f"{self}: {late[0]} displays stored values, so it comes before all other steps that change samples "
                "once, and there is one such step, as in window-0.5+jpeg-50"
            )
        own, once = self.at("few", "features"), ("samples", "test")
        others = [step.name for step in self.steps if step not in own[:1] and step.stage not in (*once, "mixture")]
        if own and others:
            valid = [name for name, kind in STEPS.items() if kind.stage in once]
            raise UsageError(
                f"{own[0].name} with {', '.join(others)}: such a victim draws views of its own, or none; it goes with "
                f"{', '.join(valid)}, and mix-0.5"
            )

    def __str__(self) -> str:
        """The steps joined with `+`, or `plain`."""
        return "+".join(self.written()) or "plain"

    @property
    def title(self) -> str:
        """Names of the steps in reports; empty without steps. Crops are named first, mixtures last."""
        others = [step for step in self.steps if step.stage not in ("crop", "mixture")]
        return ", ".join(step.title for step in (*self.at("crop"), *others, *self.at("mixture")))

    def at(self, *stages: Stage) -> list[Applied]:
        """The steps of these stages."""
        return [step for step in self.steps if step.stage in stages]

    @property
    def reading(self) -> list[Applied]:
        """The steps that change every image once before a network sees it, those of test samples included."""
        too = self.named("test-too") is not None
        kinds = [(step, STEPS[step.name]) for step in self.at("samples")]
        return [step for step, kind in kinds if kind.reads or (too and not kind.by_class)]

    def without(self, *stages: Stage) -> Countermeasures:
        """All steps but those of these stages."""
        return Countermeasures(tuple(step for step in self.steps if step.stage not in stages))

    def named(self, name: str) -> Applied | None:
        """The step of this name, or None."""
        return next((step for step in self.steps if step.name == name), None)

    @property
    def draws(self) -> bool:
        """Whether a victim of given samples depends on its seed: a linear layer on a trained encoder does not."""
        random = self.mix is not None or any(self.named(name) for name in ("diffusion", "denoise"))
        return self.named("linear-probe") is None or random

    @property
    def features(self) -> Applied | None:
        """The step by which a victim gets features before it learns classes, or None."""
        return next(iter(self.at("features")), None)

    @property
    def refit(self) -> Applied | None:
        """The step by which a trained victim's last layer is fitted again, or None."""
        return next(iter(self.at("after")), None)

    @property
    def mix(self) -> float | None:
        """Share of the samples that are taken as published, clean ones being mixed in; None: all."""
        step = self.named("mix")
        return step.strength if step else None

    @property
    def share(self) -> float | None:
        """Share of the samples that are published, in (0, 1); the attacker has the others clean. None: all."""
        return 1 - (self.refit.strength or 0) / 100 if self.refit else self.mix


PLAIN = Countermeasures()
"""A recipe without any step."""


def countermeasure(text: str) -> Applied:
    """Read `NAME` or `NAME-STRENGTH`.

    Raises:
        UsageError: there is no such step, or not with that strength.
    """
    name, strength = _split_strength(text)
    if text == "plain":
        raise UsageError("plain means no step, and goes with no other: leave it out")
    if "@" in text:
        raise UsageError(f"{text}: the network is a setting of its own, victim.network={text.partition('@')[2]}")
    if name not in STEPS:
        raise UsageError(unknown("step", text, ("plain", *STEPS)))
    kind = STEPS[name]
    if name == "mix":
        if strength is None or not 0 < strength < 1:
            raise UsageError(f"{text}: mix-0.5 has half of the samples clean; valid are shares between 0 and 1")
        return Applied(name, strength)
    if kind.default is None:
        if strength is not None:
            raise UsageError(f"{text}: {name} has no strength; write {name}")
        return Applied(name, None)
    value = kind.default if strength is None else strength
    if not kind.lowest <= value <= kind.highest or (kind.whole and value != int(value)):
        number = "a whole number" if kind.whole else "a number"
        example = f"{name}-{kind.default:g}"
        raise UsageError(f"{text}: {number} of {kind.lowest:g} to {kind.highest:g}, as in {example}")
    return Applied(name, value)


def _split_strength(text: str) -> tuple[str, float | None]:
    """`jpeg-10` is ("jpeg", 10.0), and `crop-flip` ("crop-flip", None)."""
    found = re.fullmatch(r"(.+?)-(\d+(?:\.\d+)?)", text)
    return (found[1], float(found[2])) if found else (text, None)
