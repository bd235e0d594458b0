"""`corten-oci features`: what this runtime can do, as JSON. Source: OCI runtime specification 1.3, features.md.

Rule: whether the machine at hand has a thing too is, by the specification, another question, and is not answered here.
"""

from __future__ import annotations

import sys

from corten.json_text import dumps
from corten.oci.table import command, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.oci.main import Settings

COMMAND = command("features", "", "Show what this runtime can do, as JSON.", minimum=0, maximum=0)


def run(settings: Settings, words: Sequence[str]) -> int:  # noqa: ARG001 - as every command
    """Print it; 0."""
    if parse(COMMAND, words) is not None:
        sys.stdout.write(dumps(features(), 2) + "\n")
    return 0


def features() -> dict[str, Any]:
    """The features, as the specification names them."""
    from corten import __version__
    from corten.linux import capabilities, mount_options, seccomp
    from corten.runtime.spec import Hooks
    from corten.runtime.spec.keys import json_key
    from corten.runtime.spec.values import CHOICES, NAMESPACES

    return {
        "ociVersionMin": "1.0.0",
        "ociVersionMax": "1.3.0",
        "hooks": [json_key(field) for field in Hooks._fields],
        "mountOptions": list(mount_options.known()),
        "linux": {
            "namespaces": list(NAMESPACES),
            "capabilities": list(capabilities.ALL),
            "cgroup": {"v1": True, "v2": True, "systemd": True, "systemdUser": True, "rdma": True},
            "seccomp": {
                "enabled": True,
                "actions": _seccomp("ACTIONS"),
                "operators": _seccomp("OPERATORS"),
                "archs": _seccomp("ARCHITECTURES"),
                "knownFlags": list(seccomp.FLAGS),
                "supportedFlags": list(seccomp.FLAGS),
            },
            "apparmor": {"enabled": True},
            "selinux": {"enabled": False},  # labels of processes only: mountLabel is refused
            "intelRdt": {"enabled": False, "schemata": False, "monitoring": False},
            "memoryPolicy": {
                "modes": list(CHOICES["linux.MemoryPolicy.mode"]),
                "flags": list(CHOICES["linux.MemoryPolicy.flags"]),
            },
            "mountExtensions": {"idmap": {"enabled": True}},
            "netDevices": {"enabled": True},
        },
        "annotations": {"org.corten.version": __version__},
        "potentiallyUnsafeConfigAnnotations": ["org.criu.config", "org.systemd.property."],
    }


def _seccomp(name: str) -> list[str]:
    from corten.linux import seccomp_rules

    return sorted(getattr(seccomp_rules, name))
