"""Which steps of a recipe go with which task."""

from __future__ import annotations

from hpcule.config.errors import UsageError
from hpcule.data.source import Source
from hpcule.tasks.table import find_task
from hpcule.victim.countermeasures.table import COUNTERMEASURES, Countermeasures

BY_CLASS = (
    *(name for name, kind in COUNTERMEASURES.items() if kind.by_class or kind.stage in ("few", "features", "after")),
    *("notch", "fitted-lowpass", "denoise", "projection", "adversarial"),
)
"""Steps that need one label of each sample."""
NUMBERS_ALONE = (
    *("affine", "coin", "ueraser-lite", "ueraser", "ueraser-max", "mixup", "cutmix"),
    *("fine-tune", "freeze", "adapters"),
)
"""Steps that move pixels, mix images or begin with a trained classifier: no mask follows them."""
FOR_VOLUMES = (
    *("crop-flip", "speed", "mix", "test-too", "bit-depth", "gamma", "noise", "contrast", "zscore", "equalize"),
    *("window", "set-window", "lung-window", "soft-tissue-window", "bone-window"),
)
"""Steps that change values one by one, or all slices in one way."""


def require_for_samples(steps: Countermeasures, source: Source) -> None:
    """Check that a victim of samples of this kind can take these steps.

    Raises:
        UsageError: the samples are volumes or recordings, and steps are for images.
    """
    if source.rate is not None and steps.steps:
        raise UsageError(f"{', '.join(steps.written())}: for images, and {source.name} holds recordings")
    refused = [step for step in steps.steps if source.depth is not None and step.name not in FOR_VOLUMES]
    if refused:
        raise UsageError(
            f"{', '.join(map(str, refused))}: for images, and {source.name} holds volumes; valid steps for them are "
            f"{', '.join(FOR_VOLUMES)}"
        )


def require_for_task(steps: Countermeasures, name: str) -> None:
    """Check that a victim of the task of this name can take these steps.

    Raises:
        UsageError: it cannot, and the message names them; or there is no such task.
    """
    task = find_task(name)
    refused = [] if name == "label" else [step for step in steps.steps if step.name in BY_CLASS]
    if refused:
        raise UsageError(
            f"{', '.join(map(str, refused))} needs one label of each sample, and the task is {name}: leave it out"
        )
    if task.answers == "pixels":
        refused = [step for step in steps.steps if step.name in NUMBERS_ALONE]
    if refused:
        raise UsageError(
            f"{', '.join(map(str, refused))} goes with tasks that ask for a number a sample, and the task is "
            f"{name}: leave it out"
        )
