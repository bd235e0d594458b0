"""What people look at: the machine and its containers as data, text and pictures.

    from corten import views
    views.namespaces().partition("net").classes     # who shares a network
    views.cgroups().tree("memory").hot()            # which groups are near a limit
    views.explain(4242)                             # what a process has of its own and what it shares
    views.compare(plan, 4242).differences           # what of a plan it does not have
    views.plot(views.record("box"), "box.svg")      # CPU, memory, pressure and events over time
    views.examine().exit_status                     # whether this machine has what containers need

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
    "compare": ("comparing", "compare"),
    "Comparison": ("comparing", "Comparison"),
    "examine": ("doctor.examine", "examine"),
    "Report": ("doctor.abilities", "Report"),
    "explain": ("explaining", "explain"),
    "Explanation": ("explaining", "Explanation"),
    "record": ("samples", "record"),
    "Series": ("samples", "Series"),
    "plot": ("plotting", "plot"),
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.views.comparing import Comparison, compare
    from corten.views.doctor.abilities import Report
    from corten.views.doctor.examine import examine
    from corten.views.explaining import Explanation, explain
    from corten.views.partition import Partition
    from corten.views.plotting import plot
    from corten.views.samples import Series, record
    from corten.views.sharing import Namespace, Namespaces
    from corten.views.sharing import read as namespaces
    from corten.views.tree_reading import read as cgroups
    from corten.views.trees import Figures, Forest, Holds, Node, Tree

__all__ = [
    "Comparison", "Explanation", "Figures", "Forest", "Holds", "Namespace", "Namespaces", "Node", "Partition", "Report",
    "Series", "Tree", "cgroups", "compare", "examine", "explain", "namespaces", "plot", "record",
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
