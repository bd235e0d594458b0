"""Graphics processors and the CDI files that say what of them a container needs."""

from __future__ import annotations

import glob
import os

from corten.views.doctor.abilities import DEGRADED, MISSING, OK, Ability

_AREA = "Devices"
_NODES = {"NVIDIA": "/dev/nvidia[0-9]*", "AMD": "/dev/kfd", "other": "/dev/dri/renderD*"}
_CDI = ("/etc/cdi", "/var/run/cdi")


def abilities(root: str = "") -> list[Ability]:
    """One row: GPU and CDI file. root: before /dev and the places of CDI files."""
    found = {maker: nodes for maker, pattern in _NODES.items() if (nodes := sorted(glob.glob(root + pattern)))}
    if not found:
        return [Ability(_AREA, "GPU", MISSING, "no device of one", "programs compute on the CPU")]
    maker, nodes = next(iter(found.items()))
    unusable = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if unusable:
        return [Ability(_AREA, "GPU", DEGRADED, f"{maker}: no permission to open {unusable[0]}",
                        "containers of this user cannot use it",
                        f"usermod -aG {_group(unusable[0])} $USER")]  # fmt: skip
    files = [path for top in _CDI for path in glob.glob(f"{root}{top}/*") if path.endswith((".yaml", ".json"))]
    if not files:
        mend = "nvidia-ctk cdi generate --output=/etc/cdi/nvidia.yaml" if maker == "NVIDIA" else ""
        return [Ability(_AREA, "GPU", DEGRADED, f"{maker}: {', '.join(nodes)}, but no CDI file in {' or '.join(_CDI)}",
                        "its libraries are not found; nodes can be given by --device", mend)]  # fmt: skip
    return [Ability(_AREA, "GPU", OK, f"{maker}: {', '.join(nodes)}; {', '.join(files)}")]


def _group(node: str) -> str:
    import grp

    try:
        return grp.getgrgid(os.stat(node).st_gid).gr_name
    except (KeyError, OSError):
        return "video"


