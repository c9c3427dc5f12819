"""Writing a store's files while their owner computes the next ones."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Self

import numpy as np
import numpy.typing as npt

from hpcule.data.sources.array import Array
from hpcule.store.image import Image
from hpcule.store.manifest import Manifest
from hpcule.store.vault import Vault
from hpcule.store.write import Prepared, prepare_shard, prepare_shared, put


class WriteBehind:
    """Puts one file at a time into a store that `begin` has prepared, in a thread of its own.

    What was given may be changed again at once. A file is in the store after the next `wait`, or at the end of a
    `with` block that is left without an exception. Both, and the next file, raise what befell it: StoreError where it
    could not be written.
    """

    def __init__(self, vault: Vault, manifest: Manifest) -> None:
        self._vault, self._manifest = vault, manifest
        self._thread = ThreadPoolExecutor(1, "hpcule-store")
        self._going: Future[None] | None = None
        self._image, self._other = Image(), Image()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown()
        if error is None:
            self.wait()

    def shard(
        self,
        index: int,
        labels: npt.NDArray[np.int64] | None,
        *,
        delta: Array | None = None,
        group: npt.NDArray[np.int64] | None = None,
        spectrum: npt.NDArray[np.int64] | None = None,
    ) -> None:
        """Write a shard; the arguments are those of `prepare_shard`."""
        self._put(
            prepare_shard(self._manifest, index, labels, delta=delta, group=group, spectrum=spectrum, image=self._image)
        )

    def shared(self, delta: Array) -> None:
        """Write the perturbations that samples share; see `prepare_shared`."""
        self._put(prepare_shared(self._manifest, delta, self._image))

    def wait(self) -> None:
        """Wait until the file that was given last is in the store."""
        if self._going:
            going, self._going = self._going, None
            going.result()

    def _put(self, prepared: Prepared) -> None:
        self.wait()
        self._going = self._thread.submit(put, self._vault, self._manifest, prepared)
        self._image, self._other = self._other, self._image
