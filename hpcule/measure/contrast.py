"""Where a change of an image is seen least: local contrast."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from hpcule.data.source import Samples

WINDOW = 9
"""Side in pixels of the square around each pixel over which contrast is taken."""


def local_contrast(samples: Samples) -> npt.NDArray[np.float64]:
    """Standard deviation of brightness around each pixel, in levels [n, 1, H, W], with mirrored borders.

    Args:
        samples: integers [n, C, H, W]; brightness is the mean over channels.
    """
    brightness = samples.astype(np.float64).mean(1, keepdims=True)
    around = (1, 1, WINDOW, WINDOW)
    mean, mean_square = (ndimage.uniform_filter(values, around) for values in (brightness, brightness**2))
    deviation: npt.NDArray[np.float64] = np.sqrt(np.maximum(mean_square - mean**2, 0))
    return deviation


def budget_shares(samples: Samples, flat: float, budget: float) -> npt.NDArray[np.float32]:
    """Share of a budget that each pixel gets by the image around it, [n, 1, H, W].

    Args:
        samples: integers [n, C, H, W].
        flat: the share where an image is flat. It rises with local contrast, to 1 where that reaches the budget.
        budget: in levels.
    """
    rough = np.minimum(local_contrast(samples) / budget, 1)
    return (flat + (1 - flat) * rough).astype(np.float32)
