"""The one command that mends a thing on this machine."""

from __future__ import annotations

from corten.linux.idmap import find_program

# manager: (command, {what is wanted: package})
_MANAGERS = {
    "apt-get": ("apt-get install -y", {}),
    "dnf": ("dnf install -y", {"uidmap": "shadow-utils", "libseccomp2": "libseccomp"}),
    "zypper": ("zypper install -y", {"uidmap": "shadow", "libseccomp2": "libseccomp2"}),
    "pacman": ("pacman -S --noconfirm", {"uidmap": "shadow", "libseccomp2": "libseccomp"}),
    "apk": ("apk add", {"uidmap": "shadow-uidmap", "libseccomp2": "libseccomp"}),
}


def install(package: str) -> str:
    """The command that installs a package, named as Debian names it."""
    for manager, (command, names) in _MANAGERS.items():
        if find_program(manager):
            return f"{command} {names.get(package, package)}"
    return f"install the package {package}"
