"""What people look at: the machine and its containers as data, text and pictures.

    from corten import views
    views.namespaces().partition("net").classes     # who shares a network
    views.cgroups().tree("memory").hot()            # which groups are near a limit

Rule: a view reads, shows, and changes nothing. What it could not read it shows as unknown; it never guesses.
"""

from __future__ import annotations

# name: (module below corten.views, what it is called there)
_HOMES = {
    "namespaces": ("sharing", "read"),
    "Namespace": ("sharing", "Namespace"),
    "Namespaces": ("sharing", "Namespaces"),
    "Partition": ("partition", "Partition"),
    "cgroups": ("tree_reading", "read"),
    "Figures": ("trees", "Figures"),
    "Forest": ("trees", "Forest"),
    "Holds": ("trees", "Holds"),
    "Node": ("trees", "Node"),
    "Tree": ("trees", "Tree"),
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.views.partition import Partition
    from corten.views.sharing import Namespace, Namespaces
    from corten.views.sharing import read as namespaces
    from corten.views.tree_reading import read as cgroups
    from corten.views.trees import Figures, Forest, Holds, Node, Tree

__all__ = [
    "Figures", "Forest", "Holds", "Namespace", "Namespaces", "Node", "Partition", "Tree", "cgroups", "namespaces",
]  # fmt: skip


def __getattr__(name: str) -> object:
    # Loaded when first used, as in the root package: a command that needs one view does not pay for all.
    if name in _HOMES:
        import importlib

        module, original = _HOMES[name]
        value = getattr(importlib.import_module(f"{__name__}.{module}"), original)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
