"""The beginning of a study: its data are opened, its cells counted, its folder made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from hpcule.config.errors import IN_STUDY, setting_in
from hpcule.data.left_out import left_out_notice
from hpcule.study.config import StudyConfig
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import StudyGrid, StudyVictim, expand
from hpcule.study.items import open_samples, samples_of


def begin_study(
    config: StudyConfig, path: Path, check: Callable[[Sequence[StudyVictim]], None], *, begin: bool = True
) -> tuple[StudyFolder, StudyGrid, list[str | None]]:
    """The folder and grid of a study, and what is to be said about its data and its batches.

    Args:
        config: the study.
        path: of its folder.
        check: gets the victims that are not done yet, and refuses those that cannot be trained.
        begin: whether to create the folder.
    """
    samples, left_out = {}, []
    for name in config.data_sets:
        with setting_in(IN_STUDY):
            source, test = open_samples(config.on(name))
            samples[name] = samples_of(source, test)
        left_out.append(left_out_notice(source, test))
    grid = expand(config, samples)
    folder = StudyFolder(path)
    check([victim for victim in grid.victims.values() if folder.result(victim.key) is None])
    if begin:
        folder.begin(config, samples)
    return folder, grid, [*left_out, *grid.notes]
