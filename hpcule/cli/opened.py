"""A store with the samples that it was made for and clean test samples, as several verbs take them."""

from __future__ import annotations

import argparse
from typing import Any


def store_and_data(options: argparse.Namespace) -> tuple[Any, Any, Any]:
    """The store, its source, and the test set of STORE, --data and --test.

    Raises:
        HpculeError: one of them cannot be read, or the test set is of another task.
    """
    from hpcule.data.check import check_same_task
    from hpcule.data.open import open_source, open_test
    from hpcule.store.read import StoreReader

    store = StoreReader(options.store)
    size, skip = store.manifest.working_size, bool(store.manifest.config["skip_unreadable"])
    source = open_source(options.data, image_size=size, skip_unreadable=skip)
    test = open_test(options.data, options.test, image_size=size)
    check_same_task(source, test)
    return store, source, test
