"""The OCI runtime specification 1.3 for Linux: its types, reading and writing them as JSON, and its rules.

    load(path) -> Spec         read a config.json
    decode(data) -> Spec       from parsed JSON; `decode_as(Process, data)` for a part
    encode(record) -> dict     the inverse
    validate(spec)             the rules between fields

All raise `errors.InvalidInput` with one line that begins with the field in JSON spelling.
"""

from __future__ import annotations

from corten.linux.capabilities import Sets
from corten.linux.idmap import IdMapping
from corten.runtime.spec.container import VERSION, Mount, Root, Spec
from corten.runtime.spec.hooks import Hook, Hooks
from corten.runtime.spec.linux import (
    Device,
    IntelRdt,
    Linux,
    MemoryPolicy,
    Namespace,
    NetDevice,
    Personality,
    TimeOffset,
)
from corten.runtime.spec.process import (
    Box,
    ExecCPUAffinity,
    IOPriority,
    Process,
    Rlimit,
    Scheduler,
    User,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.runtime.spec.decoding import decode, decode_as, encode, unknown_fields
    from corten.runtime.spec.files import load, load_as, parse
    from corten.runtime.spec.validation import validate, validate_process

__all__ = [
    "VERSION",
    "Box",
    "Device",
    "ExecCPUAffinity",
    "Hook",
    "Hooks",
    "IOPriority",
    "IdMapping",
    "IntelRdt",
    "Linux",
    "MemoryPolicy",
    "Mount",
    "Namespace",
    "NetDevice",
    "Personality",
    "Process",
    "Rlimit",
    "Root",
    "Scheduler",
    "Sets",
    "Spec",
    "TimeOffset",
    "User",
    "decode",
    "decode_as",
    "encode",
    "load",
    "load_as",
    "parse",
    "unknown_fields",
    "validate",
    "validate_process",
]

# `corten run` makes its specs itself: what reads and checks JSON is loaded when somebody asks for it.
_LATER = {
    "decode": "decoding",
    "decode_as": "decoding",
    "encode": "decoding",
    "unknown_fields": "decoding",
    "load": "files",
    "load_as": "files",
    "parse": "files",
    "validate": "validation",
    "validate_process": "validation",
}


def __getattr__(name: str) -> object:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LATER[name]}"), name)
