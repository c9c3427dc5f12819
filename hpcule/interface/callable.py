"""The sub-package `hpcule.craft`, which has the name of a function of the interface, as that function."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from inspect import Signature

    from hpcule.interface.craft import CraftResult


class CraftPackage(ModuleType):
    """A module that is called as `hpcule.interface.craft.craft`."""

    def __call__(self, *arguments: object, **settings: object) -> CraftResult:
        """Craft the perturbation of a collection; `help(hpcule.interface.craft.craft)` lists the arguments."""
        from hpcule.interface.craft import craft

        return craft(*arguments, **settings)  # type: ignore[arg-type]

    @property
    def __signature__(self) -> Signature:
        from inspect import signature

        from hpcule.interface.craft import craft

        return signature(craft)
