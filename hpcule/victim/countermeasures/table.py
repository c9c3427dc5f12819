"""What a victim does to published samples, beside ordinary training, to undo a protection: a table of named steps."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from hpcule.config.errors import UsageError
from hpcule.config.tree import unknown

Stage = Literal["samples", "set", "batch", "labels", "network", "few", "features", "after"]
EARLY = 0.25
"""Share of the steps in which UEraser is adversarial: 50 of 200 epochs."""


@dataclass(frozen=True)
class Countermeasure:
    """One step.

    Attributes:
        stage: acts once on each of the published `samples`, is fitted to the whole `set`, acts anew on every `batch`,
            on a batch and its `labels`, or on the `network`; makes do with `few` labels; gets `features` before classes
            are learnt; or acts `after` training.
        title: for people; {} stands for the strength.
        default, lowest, highest: of the strength; None where the step has none.
        whole: the strength is a whole number.
        versions: of every sample that a step looks at, to learn from the one with the largest loss.
        early: more than one version in the first quarter of the steps alone.
    """

    stage: Stage
    title: str
    default: float | None = None
    lowest: float = 0
    highest: float = 0
    whole: bool = True
    versions: int = 1
    early: bool = False


COUNTERMEASURES: Mapping[str, Countermeasure] = {
    "grayscale": Countermeasure("samples", "grayscale"),
    "jpeg": Countermeasure("samples", "JPEG at quality {}", 10, 1, 100),
    "bit-depth": Countermeasure("samples", "{} bits a value", 2, 1, 7),
    "blur": Countermeasure("samples", "Gaussian blur of {} pixels", 1, 0.3, 10, whole=False),
    "diffusion": Countermeasure("samples", "{} steps of a diffusion model and back", 100, 1, 1000),
    "rebuild": Countermeasure("samples", "rebuilt by a trained network"),
    "projection": Countermeasure("set", "orthogonal projection"),
    "cutout": Countermeasure("batch", "cutout of {}% of the width", 50, 1, 100),
    "resize": Countermeasure("batch", "shrunk at random to {}% or more and back", 50, 5, 99),
    "coin": Countermeasure("batch", "every pixel drawn from up to {} pixels away (COIN)", 2, 0.5, 10, whole=False),
    "ueraser-lite": Countermeasure("batch", "UEraser-lite"),
    "ueraser": Countermeasure("batch", "UEraser", versions=5, early=True),
    "ueraser-max": Countermeasure("batch", "UEraser-max", versions=5),
    "mixup": Countermeasure("labels", "mixup"),
    "cutmix": Countermeasure("labels", "cutmix"),
    "adversarial": Countermeasure("network", "adversarial training, radius {}", 4, 1, 32),
    "fixmatch": Countermeasure("few", "FixMatch with {} labels a class", 25, 1, 100_000),
    "dfr": Countermeasure("after", "last layer fitted anew to {}% clean", 10, 0.1, 90, whole=False),
    "fine-tune": Countermeasure("network", "fine-tuned from trained weights"),
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


@dataclass(frozen=True)
class Applied:
    """A countermeasure with its strength."""

    name: str
    strength: float | None

    @property
    def stage(self) -> Stage:
        """Where it acts."""
        return COUNTERMEASURES[self.name].stage

    def versions(self, progress: float) -> int:
        """Of every sample, after such a share of the steps."""
        kind = COUNTERMEASURES[self.name]
        return 1 if kind.early and progress >= EARLY else kind.versions

    @property
    def title(self) -> str:
        """For people."""
        title = COUNTERMEASURES[self.name].title
        return title if self.strength is None else title.format(f"{self.strength:g}")


def countermeasure(text: str) -> Applied:
    """Read `NAME` or `NAME-STRENGTH`.

    Raises:
        UsageError: there is no such step, or not with that strength.
    """
    name, strength = split_strength(text)
    if name not in COUNTERMEASURES:
        raise UsageError(unknown("countermeasure", text, COUNTERMEASURES))
    kind = COUNTERMEASURES[name]
    if kind.default is None:
        if strength is not None:
            raise UsageError(f"countermeasure {text}: {name} has no strength; write {name}")
        return Applied(name, None)
    value = kind.default if strength is None else strength
    if not kind.lowest <= value <= kind.highest or (kind.whole and value != int(value)):
        number = "a whole number" if kind.whole else "a number"
        example = f"{name}-{kind.default:g}"
        raise UsageError(f"countermeasure {text}: {number} of {kind.lowest:g} to {kind.highest:g}, as in {example}")
    return Applied(name, value)


def feature_step(texts: Sequence[str]) -> Applied | None:
    """The step by which a victim gets features before it learns classes, or None."""
    return next((step for step in map(countermeasure, texts) if step.stage == "features"), None)


def refit_step(texts: Sequence[str]) -> Applied | None:
    """The step by which a trained victim's last layer is fitted anew, or None."""
    return next((step for step in map(countermeasure, texts) if step.stage == "after"), None)


def without_refit(texts: Sequence[str]) -> tuple[str, ...]:
    """The steps of the training itself."""
    return tuple(text for text in texts if refit_step([text]) is None)


def check_together(texts: Sequence[str], *, crop_flip: bool) -> None:
    """Raise UsageError where a step draws views of its own and others beside it would change a batch or a network."""
    steps = [countermeasure(text) for text in texts]
    own = [step for step in steps if step.stage in ("few", "features")]
    if not own:
        return
    others = [step.name for step in steps if step is not own[0] and step.stage != "samples"]
    others += ["crop-flip"] * crop_flip
    if others:
        valid = [name for name, kind in COUNTERMEASURES.items() if kind.stage == "samples"]
        raise UsageError(
            f"{own[0].name} with {', '.join(others)}: such a victim draws views of its own, or none; beside it there "
            f"may be {', '.join(valid)}, and mix-0.5"
        )


def split_strength(text: str) -> tuple[str, float | None]:
    """`jpeg-10` is ("jpeg", 10.0), and `crop-flip` ("crop-flip", None)."""
    found = re.fullmatch(r"(.+?)-(\d+(?:\.\d+)?)", text)
    return (found[1], float(found[2])) if found else (text, None)
