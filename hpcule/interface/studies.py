"""`hpcule.load_study`: the results of a study."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.config.errors import StoreError
from hpcule.interface.frames import frame
from hpcule.study.collect import rows
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import expand

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Study:
    """The folder of a study, finished or not.

    Attributes:
        path: the folder.
        config: what is crafted, what is varied, and which victims measure it.
    """

    path: Path
    config: StudyConfig = field(repr=False)

    @property
    def cells(self) -> DataFrame:
        """One row for each cell whose victims are all trained, with the columns of cells.csv; see docs/studies.md.

        Raises:
            UsageError: pandas is not installed.
            StoreError: a result is damaged.
        """
        folder = StudyFolder(self.path)
        return frame(rows(folder, expand(self.config, folder.samples())))

    @property
    def html(self) -> str:
        """The study's page as a text of HTML that needs no other file.

        Raises:
            StoreError: there is none yet.
        """
        path = self.path / "report.html"
        try:
            return path.read_text()
        except OSError as error:
            raise StoreError(
                f"{path} cannot be read ({error.strerror}): `hpcule study report {self.path}` writes it"
            ) from None


def load_study(path: str | Path) -> Study:
    """Load a study from its folder, the `--out` of `hpcule study run`.

    Raises:
        UsageError: there is no study in this folder.
    """
    folder = StudyFolder(Path(path).expanduser())
    return Study(folder.path, folder.config())
