"""`hpcule.open_store` and `hpcule.export`: what a store holds, and the copy that is published from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from hpcule.config.errors import UsageError
from hpcule.interface.handover import handed_over
from hpcule.interface.process import log
from hpcule.store.keys import vault_of
from hpcule.store.manifest import Manifest, read_manifest
from hpcule.store.permissions import exposed
from hpcule.store.read import StoreReader
from hpcule.store.vault import Vault

if TYPE_CHECKING:
    from hpcule.interface.handover import Data, Labels
    from hpcule.interface.published import PublishedDataset
    from hpcule.publish.deidentify import Policy
    from hpcule.publish.export import ExportSummary
    from hpcule.store.verify import Damage


@dataclass(frozen=True)
class Store:
    """A store, by its folder. Nothing stays open between calls, so it can be pickled and copied.

    Attributes:
        path: the folder.
        key: where the key of an encrypted store is: a file, or `keyring:NAME`.
        manifest: the method and its settings (`method`, `config`, `seed`), the budget (`epsilon`, `norm`, `levels`),
            the samples (`n`, `sample_shape`, `source`), the files (`shards`), and whether the run is `complete`.
    """

    path: Path
    key: str | Path | None = field(default=None, repr=False)
    manifest: Manifest = field(repr=False, kw_only=True)

    def delta(self, ids: Sequence[int] | npt.NDArray[np.integer] | range | int) -> npt.NDArray[np.integer]:
        """The perturbations of any samples, in any order.

        Args:
            ids: numbers from 0 to `manifest.n - 1`.

        Returns:
            int8, int16 or int32 [n, C, H, W], in levels of the samples' grid (8 is 8/255 of 8-bit images). What samples
            share by class or cluster stands in the row of each of them.

        Raises:
            UsageError: an id is no whole number, or there is no such sample.
            StoreError: the store is not complete, or damaged.
        """
        wanted = np.atleast_1d(np.asarray(ids))
        if wanted.size == 0:
            wanted = wanted.astype(np.int64)
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise UsageError(f"ids: an array {list(wanted.shape)} of {wanted.dtype}; valid are whole numbers [n]")
        wrong = wanted[(wanted < 0) | (wanted >= self.manifest.n)]
        if wrong.size:
            raise UsageError(f"ids: {wrong[0]} is no sample of {self.path}; valid are 0 to {self.manifest.n - 1}")
        with StoreReader(self.vault, cache_bytes=0) as reader:
            found: npt.NDArray[np.integer] = reader.delta(wanted.astype(np.int64))
        return found

    def verify(self, data: Data | None = None, *, labels: Labels | None = None) -> list[Damage]:
        """Check the shards byte by byte, every id, the budget, settings and exports, as `hpcule verify` does.

        Args:
            data: the samples that the store was made for, as in `hpcule.craft`: the two must belong together.
            labels: of arrays.

        Returns:
            What is wrong, each with `kind`, `file` and `message`; an empty list for a sound store.
        """
        from hpcule.store.verify import verify

        if data is None:
            return verify(self.vault)
        with handed_over(data, labels) as text:
            return verify(self.vault, self.manifest.opening.source(text))

    def published(
        self,
        data: Data,
        *,
        labels: Labels | None = None,
        transform: Callable[[Any], Any] | None = None,
    ) -> PublishedDataset:
        """The protected samples as a torch data set, with the values that `hpcule export` writes.

        Args:
            data: the clean samples that the store was made for, as in `hpcule.craft`.
            labels: of arrays.
            transform: called with each image before it is returned; it must be picklable where a DataLoader starts its
                workers by spawning them.

        Raises:
            StoreError: the store is not complete, damaged, or made for other samples.
            DataError: a sample cannot be read.
        """
        from hpcule.interface.published import PublishedDataset

        return PublishedDataset(self.path, data, labels=labels, transform=transform, key=self.key)

    @property
    def vault(self) -> Vault:
        """The folder with the key itself, which is read from where it is kept."""
        return vault_of(self.path, self.key)


def open_store(path: str | Path, *, key: str | Path | None = None) -> Store:
    """Open a store that `hpcule.craft` wrote.

    Args:
        path: its folder.
        key: where the key of an encrypted store is: a file, or `keyring:NAME`.

    Raises:
        StoreError: there is no store, its manifest is damaged, or it is encrypted with another key.
        UsageError: the key cannot be read.
    """
    folder = Path(path).expanduser()
    if notice := exposed(folder):
        log.warning("%s", notice)
    return Store(folder, key, manifest=read_manifest(vault_of(folder, key)))


def export(
    store: str | Path | Store,
    *,
    data: Data,
    out: str | Path,
    labels: Labels | None = None,
    format: str | None = None,
    jpeg_quality: int | None = None,
    dicom_tags: Policy = "basic-deidentify",
    shift_dates: bool = False,
    check: bool = True,
    key: str | Path | None = None,
) -> ExportSummary:
    """Write the protected copy of a collection, as `hpcule export` does: the one thing that may be published.

    Args:
        store: a complete store, or its folder.
        data: the clean samples that it was made for, as in `hpcule.craft`.
        out: an absent or empty folder; for npz and HDF5 it may be a file that ends in .npz or .h5.
        labels: of arrays.
        format: folder, wav, webdataset, dicom, nifti, nnunet, npz or hdf5; None: the kind of the data, npz for arrays.
        jpeg_quality: keep JPEG files JPEG with this quality, which loses protection; None: write them without loss.
        dicom_tags: tags of DICOM files: "keep", "basic-deidentify" or "minimal".
        shift_dates: shift the dates of DICOM files by days that are random and secret for each patient, instead of
            removing them.
        check: read what was written, and compare it with the data, before it has its name.
        key: where the key of an encrypted store is.

    Returns:
        What was written: `path`, `format`, `protected`, `copied`, `bytes`, `records`, and the `largest` change, which
        `change` gives with its unit.

    Raises:
        StoreError: the store is damaged or made for other samples, `out` holds something, or what was written is not
            what was to be published.
        UsageError: the format cannot hold the samples.
        DataError: a sample cannot be read.
    """
    from hpcule.publish.release import release

    opened = store if isinstance(store, Store) else open_store(store, key=key)
    with handed_over(data, labels) as text:
        written = release(
            opened.vault,
            text,
            Path(out),
            format=format,
            jpeg_quality=jpeg_quality,
            dicom_tags=dicom_tags,
            shift_dates=shift_dates,
            check=check,
        )
    for notice in filter(None, (written.left_out, written.warning, written.declared)):
        log.warning("%s", notice)
    return written.summary
