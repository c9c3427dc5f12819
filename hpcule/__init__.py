"""Unlearnable examples, crafted jointly on many workers, published, and measured.

The Python interface has the words of the command line:

    hpcule.craft("pil", data="cifar10.npz", out="store", epsilon=8)    # the perturbation of a collection
    hpcule.open_store("store")                                         # its manifest, deltas, published samples
    hpcule.export("store", data="cifar10.npz", out="copy")             # the protected copy, as files
    hpcule.evaluate("store", data="cifar10.npz", suite="quick")        # the protection report
    hpcule.load_study("study")                                         # the cells of a study
    hpcule.methods()                                                   # the table of methods

Nothing heavy is imported before one of them is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hpcule.config.errors import DataError, HpculeError, StoreError, UsageError
from hpcule.config.version import __version__

if TYPE_CHECKING:
    from hpcule.interface.craft import CraftResult, craft
    from hpcule.interface.evaluation import Report, evaluate
    from hpcule.interface.published import PublishedDataset
    from hpcule.interface.stores import Store, export, open_store
    from hpcule.interface.studies import Study, load_study
    from hpcule.interface.table import methods
else:
    # The room `hpcule/craft` is called as the function is. It is imported here, so that no later import of it or of
    # what lies in it could put another object into this place.
    from hpcule import craft
    from hpcule.interface.callable import CraftPackage

    craft.__class__ = CraftPackage
    _MODULES = {
        "CraftResult": "craft",
        "PublishedDataset": "published",
        "Report": "evaluation",
        "Store": "stores",
        "Study": "studies",
        "evaluate": "evaluation",
        "export": "stores",
        "load_study": "studies",
        "methods": "table",
        "open_store": "stores",
    }

    def __getattr__(name: str) -> object:
        """Import what is asked for, from `hpcule.interface`."""
        from importlib import import_module

        if name not in _MODULES:
            raise AttributeError(f"module 'hpcule' has no attribute '{name}'", name=name, obj=__import__(__name__))
        return getattr(import_module(f"hpcule.interface.{_MODULES[name]}"), name)

    def __dir__() -> list[str]:
        """All public names, imported or not."""
        return sorted({*globals(), *__all__})


__all__ = [
    "CraftResult",
    "DataError",
    "HpculeError",
    "PublishedDataset",
    "Report",
    "Store",
    "StoreError",
    "Study",
    "UsageError",
    "__version__",
    "craft",
    "evaluate",
    "export",
    "load_study",
    "methods",
    "open_store",
]
