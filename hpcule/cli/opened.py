"""Opening what several verbs take: a store that is private, the samples that it was made for, clean test samples."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hpcule.config.errors import one_line

if TYPE_CHECKING:
    from hpcule.data.source import Source
    from hpcule.store.read import StoreReader
    from hpcule.store.seal import Key
    from hpcule.store.vault import Vault
    from hpcule.world.group import World


def privacy_notice(stores: Sequence[Path], *, strict: bool) -> str | None:
    """What to tell the owner of stores that others may read.

    Raises:
        StoreError: there are such, and `strict` refuses them.
    """
    from hpcule.config.errors import StoreError
    from hpcule.store.permissions import exposed

    found = [text for store in stores if (text := exposed(store)) is not None]
    if found and strict:
        raise StoreError(found[0])
    return "; ".join(found) or None


def say(*notices: str | None) -> None:
    """Print what there is to say on standard error."""
    for notice in filter(None, notices):
        print(f"hpcule: {one_line(notice)}", file=sys.stderr)


def leader_says(world: World) -> Callable[[str], None]:
    """What prints a notice of a run on standard error, once for all ranks."""
    return say if world.leads else lambda text: None


def show(line: str) -> None:
    """Print a line that may hold a foreign name: what a terminal would obey is escaped."""
    print(one_line(line))


def single_file(copy: Path) -> Path:
    """The npz or HDF5 file that is all there is in a folder, or the folder itself."""
    files = list(copy.iterdir()) if copy.is_dir() else []
    return files[0] if len(files) == 1 and files[0].suffix in (".npz", ".h5") else copy


def key_of(options: argparse.Namespace) -> Key | None:
    """The key that --key names; None without --key.

    Raises:
        HpculeError: the key cannot be read.
    """
    from hpcule.store.keys import read_key

    return read_key(options.key) if options.key else None


def opened_vault(options: argparse.Namespace) -> Vault:
    """STORE with the key of --key; warns on standard error if others may read the store.

    Raises:
        HpculeError: the key cannot be read, or --strict refuses the store.
    """
    from hpcule.store.vault import Vault

    say(privacy_notice([options.store], strict=options.strict))
    return Vault(options.store, key_of(options))


def store_and_data(options: argparse.Namespace) -> tuple[StoreReader, Source, Source]:
    """The store, its source, and the test set of STORE, --data and --test; see `stores_and_data`."""
    (store,), source, test = stores_and_data([options.store], options)
    return store, source, test


def stores_and_data(paths: Sequence[Path], options: argparse.Namespace) -> tuple[list[StoreReader], Source, Source]:
    """Several stores of the same samples, their source, and the test set of --data and --test.

    Raises:
        HpculeError: one of them cannot be read, the stores open the samples in different ways, or the test set is
            of another task.
    """
    from dataclasses import replace

    from hpcule.config.errors import IN_STORE, UsageError, setting_in
    from hpcule.data.check import check_same_task
    from hpcule.store.read import StoreReader
    from hpcule.store.vault import Vault

    key = key_of(options)
    stores = [StoreReader(Vault(path, key)) for path in paths]
    openings = [store.manifest.opening for store in stores]
    skipping = any(opening.skip_unreadable for opening in openings)
    if len({replace(opening, skip_unreadable=skipping) for opening in openings}) > 1:
        raise UsageError(
            "the stores were crafted on samples of different sizes, or on different ones "
            f"({', '.join(map(str, dict.fromkeys(openings)))}): compare stores of the same samples"
        )
    opening = replace(openings[0], skip_unreadable=skipping)
    with setting_in(IN_STORE):
        source, test = opening.source(options.data), opening.test(options.data, options.test)
        check_same_task(source, test)
    return stores, source, test
