"""Removing from a study's folder what can be made again; results and stores stay."""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from hpcule.store.files import writing
from hpcule.study.folder import StudyFolder
from hpcule.study.grid import StudyGrid
from hpcule.study.submitted import ArrayDocument, SubmittedJobs


def clean_folder(folder: StudyFolder, grid: StudyGrid, queued: Collection[str]) -> dict[str, int]:
    """Remove checkpoints, logs and code copies of finished items, and the cache where all crafts are finished.

    Args:
        folder: of the study.
        grid: of the study.
        queued: numbers of the arrays that wait or run.

    Returns:
        Bytes that were removed, by kind.
    """
    finished = {key for key in (*grid.crafts, *grid.victims) if folder.result(key) is not None}
    arrays = SubmittedJobs(folder.path).arrays()
    ended = [array for array in arrays if _has_ended(array, finished, queued)]
    kept = {array["code"] for array in arrays if array not in ended}
    copies = {Path(array["code"]) for array in ended if array["code"] not in kept}
    cache = [folder.path / "cache"] if finished.issuperset(grid.crafts) and len(ended) == len(arrays) else []
    stores = [folder.store(key) for key in grid.crafts if key in finished]
    checkpoints = [path for store in stores for path in (store / "run").glob("checkpoint-*")]
    if finished.issuperset(grid.victims):
        # What attackers have fitted, which several victims share.
        checkpoints += (folder.path / "done").glob("*.checkpoint")
    return {
        "checkpoints": _remove(checkpoints),
        "logs": _remove(path for array in ended for path in _logs(array)),
        "copies of the code": _remove(copies),
        "cache": _remove(cache),
    }


def _has_ended(array: ArrayDocument, finished: Collection[str], queued: Collection[str]) -> bool:
    return array["job"] not in queued and all(key in finished for keys in array["items"] for key in keys)


def _logs(array: ArrayDocument) -> list[Path]:
    """Logs, script and commands of an array, and submitit's link to the script."""
    logs = Path(array["logs"])
    own = sorted(logs.glob(f"{array['job']}_*"))
    return [*own, *(link for link in logs.glob(".submission_file_*") if link.is_symlink() and link.resolve() in own)]


def _remove(paths: Iterable[Path]) -> int:
    """Remove files and folders; returns their bytes."""
    size = 0
    for path in paths:
        inside = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
        size += sum(found.lstat().st_size for found in inside if found.is_file() or found.is_symlink())
        with writing(path):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    return size
