"""Results as pandas data frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from hpcule.config.errors import UsageError

if TYPE_CHECKING:
    from pandas import DataFrame


def frame(rows: Sequence[Mapping[str, object]]) -> DataFrame:
    """A data frame of these rows, whose columns are all names in the order in which they first occur.

    Raises:
        UsageError: pandas is not installed.
    """
    try:
        import pandas
    except ImportError:
        raise UsageError("data frames need pandas: pip install 'hpcule[pandas]'") from None
    return pandas.DataFrame(list(rows))
