"""The whole of `config.json`. Source: OCI runtime specification 1.3, config.md."""

from __future__ import annotations

from corten.linux.idmap import IdMapping
from corten.records import Record
from corten.runtime.spec.hooks import Hooks
from corten.runtime.spec.linux import Linux
from corten.runtime.spec.process import Process

VERSION = "1.3.0"


class Root(Record):
    """The root file system: a directory, absolute or relative to the bundle."""

    path: str
    readonly: bool = False


class Mount(Record):
    """One mount, in the order given; `options` as in fstab(5), with those that mount(8) interprets itself."""

    destination: str
    type: str = ""
    source: str = ""
    options: tuple[str, ...] = ()
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()


class Spec(Record):
    """A container, wholly described."""

    oci_version: str = VERSION
    process: Process | None = None
    root: Root | None = None
    hostname: str = ""
    domainname: str = ""
    mounts: tuple[Mount, ...] = ()
    hooks: Hooks | None = None
    annotations: dict[str, str] = {}
    linux: Linux | None = None
