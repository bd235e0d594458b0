"""Corten: containers from Python, without a daemon.

    import corten
    result = corten.run("host", ["python3", "-c", "print(6 * 7)"], memory="256m", cpus=1, pids=32, timeout=10)
    result.stdout, result.exit_code, result.reason, result.usage.memory_peak
"""

from __future__ import annotations

__version__ = "0.1.0"

_HOMES = {
    "Image": "build.image",
    "BuildFailed": "build.failures",
    "run": "engine.container",
    "start": "engine.container",
    "Container": "engine.container",
    "PIPE": "engine.container",
    "DEVNULL": "engine.container",
    "Result": "engine.result",
    "Usage": "engine.result",
    "Error": "errors",
    "InvalidInput": "errors",
    "NotFound": "errors",
    "NameInUse": "errors",
    "KernelError": "errors",
    "Unsupported": "errors",
    "CommandNotFound": "errors",
    "CommandNotRunnable": "errors",
    "ContainerFailed": "errors",
    "OutOfMemory": "errors",
    "TimedOut": "errors",
    "Timeout": "errors",
    "Killed": "errors",
    "RemoteError": "errors",
    "Cancelled": "errors",
    "function": "compute.function",
    "Function": "compute.function",
    "Call": "compute.call",
    "Pool": "compute.pool",
    "shutdown": "compute.lanes",
    "ContainerExecutor": "compute.executor",
}

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.build.failures import BuildFailed
    from corten.build.image import Image
    from corten.compute.call import Call
    from corten.compute.executor import ContainerExecutor
    from corten.compute.function import Function, function
    from corten.compute.lanes import shutdown
    from corten.compute.pool import Pool
    from corten.engine.container import DEVNULL, PIPE, Container, run, start
    from corten.engine.result import Result, Usage
    from corten.errors import (
        Cancelled,
        CommandNotFound,
        CommandNotRunnable,
        ContainerFailed,
        Error,
        InvalidInput,
        KernelError,
        Killed,
        NameInUse,
        NotFound,
        OutOfMemory,
        RemoteError,
        TimedOut,
        Timeout,
        Unsupported,
    )

__all__ = [
    "DEVNULL",
    "PIPE",
    "BuildFailed",
    "Call",
    "Cancelled",
    "CommandNotFound",
    "CommandNotRunnable",
    "Container",
    "ContainerExecutor",
    "ContainerFailed",
    "Error",
    "Function",
    "Image",
    "InvalidInput",
    "KernelError",
    "Killed",
    "NameInUse",
    "NotFound",
    "OutOfMemory",
    "Pool",
    "RemoteError",
    "Result",
    "TimedOut",
    "Timeout",
    "Unsupported",
    "Usage",
    "function",
    "run",
    "shutdown",
    "start",
]


def __getattr__(name: str) -> object:
    # Loaded when first used: importing corten costs nothing by itself.
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
