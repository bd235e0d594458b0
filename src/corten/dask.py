"""Dask on containers: `pip install 'corten[dask]'`.

    ContainerCluster    a Dask cluster whose workers are containers, on this machine or on others
    WorkerKilled        a task was given up because workers died; says why. Also Dask's `KilledWorker`
    WorkerOutOfMemory   ... for memory; also `corten.OutOfMemory`

Functions on the workers of a Dask cluster: `f.map(xs, on=client)`. See docs/dask.md.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.compute.dask.cluster import ContainerCluster
    from corten.compute.dask.scheduler import WorkerKilled, WorkerOutOfMemory

__all__ = ["ContainerCluster", "WorkerKilled", "WorkerOutOfMemory"]

_HOMES = {"ContainerCluster": "cluster", "WorkerKilled": "scheduler", "WorkerOutOfMemory": "scheduler"}


def __getattr__(name: str) -> object:
    # Loaded when first used: distributed takes half a second, and may not be installed.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    from corten.compute.dask import require

    require()
    value = getattr(importlib.import_module(f"corten.compute.dask.{_HOMES[name]}"), name)
    globals()[name] = value
    return value
