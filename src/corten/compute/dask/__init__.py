"""Beyond one machine, on Dask: workers that are containers, and calls of functions on the workers of all machines.

    cluster     `ContainerCluster`: how many workers there are, on which machines, and their replacement
    scheduler   Dask's scheduler, which hears from us why a worker ended and tells it to whoever waits for a result
    worker      a container with a Dask worker, on this machine; `remote`: on another one, by ssh
    agent       what runs on the other machine
    mapping     `f.map(xs, on=client)`, the client's side; `serving`: the worker's side

Rule: `distributed` is imported by the modules that need it and by nobody else; `agent` and `end` do not.
"""

from __future__ import annotations

from corten.errors import Unsupported


def require() -> None:
    """See that Dask is installed. `Unsupported`: it is not."""
    import importlib.util

    if importlib.util.find_spec("distributed") is None:
        raise Unsupported("this needs the package distributed, which is not installed: pip install 'corten[dask]'")
