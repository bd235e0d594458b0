"""What this machine has set up for getting packages, shown to the steps of a build: settings of pip and apt, proxies.

Rule 1: none of it becomes part of an image, nor of a key: another machine gets the same packages another way.
Rule 2: a file that a setting names is shown where it lies, so that the setting holds inside, too.
Rule 3: nothing is looked up before a step needs it: a build that is cached asks neither pip nor apt.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache

from corten.engine.mounts import MountOption
from corten.errors import Unsupported
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

PIP = "/run/corten/pip"
"""Where the pip of this Python is shown, so that no image needs one."""
_APT = "/run/corten/apt.conf"
_PROXIES = ("http_proxy", "https_proxy", "ftp_proxy", "no_proxy", "all_proxy")
_TO_UV = {"index-url": "UV_DEFAULT_INDEX", "extra-index-url": "UV_INDEX", "find-links": "UV_FIND_LINKS"}
_NOT_PASSED = (
    "cache-dir", "log", "no-cache-dir", "target", "prefix", "root", "user", "require-virtualenv",
    "config-file",  # what is in it is listed, too
)  # fmt: skip


class HostSettings(Record):
    """Mounts and variables. texts: files to be made, as (place in the container, content)."""

    mounts: tuple[MountOption, ...] = ()
    env: tuple[tuple[str, str], ...] = ()
    texts: tuple[tuple[str, str], ...] = ()


@cache
def host_settings() -> HostSettings:
    """What there is. Unsupported: this Python has no pip, not even the one that venv brings."""
    mounts = [_pip()]
    env = {name: value for name in _PROXIES for name in (name, name.upper()) if (value := os.environ.get(name))}
    env["PIP_DISABLE_PIP_VERSION_CHECK"] = "1"
    for key, value in _pip_settings():
        env[f"PIP_{key.upper().replace('-', '_')}"] = value
        if key in _TO_UV:
            env[_TO_UV[key]] = value
        if key == "cert":
            env["SSL_CERT_FILE"] = value
        mounts += [MountOption("bind", path, path, read_only=True) for path in _local(value)]
    apt = _apt_settings()
    if apt:
        env["APT_CONFIG"] = _APT
    unique = {mount.target: mount for mount in mounts}
    outermost = [m for m in unique.values() if not any(m.target.startswith(f"{other}/") for other in unique)]
    return HostSettings(tuple(outermost), tuple(env.items()), ((_APT, apt),) if apt else ())


def _pip() -> MountOption:
    """A directory with the package pip, or a wheel of it: both can be on Python's path."""
    import importlib.util

    found = importlib.util.find_spec("pip")
    if found is not None and found.submodule_search_locations:
        where = found.submodule_search_locations[0]
        return MountOption("bind", f"{PIP}/pip", os.path.realpath(where), read_only=True)
    try:
        import ensurepip

        bundled = os.path.join(os.path.dirname(ensurepip.__file__), "_bundled")
        wheels = [name for name in os.listdir(bundled) if name.startswith("pip-")]
    except (ImportError, OSError):
        wheels = []
    if not wheels:
        raise Unsupported("pip steps need the pip of the Python that Corten runs in: get it by python3 -m ensurepip")
    return MountOption("bind", PIP, f"{bundled}/{wheels[0]}", read_only=True)


def _pip_settings() -> Iterable[tuple[str, str]]:
    """What pip is configured with here, the settings for all commands and for install; later ones hold."""
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False, timeout=60
    )
    import ast

    for line in done.stdout.splitlines():
        name, equals, value = line.partition("=")
        section, _, key = name.rpartition(".")
        if equals and section in ("global", "install", ":env:") and key not in _NOT_PASSED:
            try:
                yield key, str(ast.literal_eval(value))
            except (ValueError, SyntaxError):
                continue


def _local(value: str) -> list[str]:
    """The files and directories that a setting names. Of an index in a directory, what its links lead to is beside."""
    found = []
    for word in value.split():
        path = word.removeprefix("file://")
        if path.startswith("/") and os.path.exists(path):
            found.append(os.path.dirname(path.rstrip("/")) if word.startswith("file://") else path)
    return found


def _apt_settings() -> str:
    """Proxies of apt, and how strict it is about dates; empty where there is no apt."""
    if shutil.which("apt-config") is None:
        return ""
    done = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=False, timeout=60)
    begins = ("Acquire::http", "Acquire::https", "Acquire::Check-", "Acquire::Retries")
    kept = [line for line in done.stdout.splitlines() if line.startswith(begins) and not line.endswith('"";')]
    return "".join(f"{line}\n" for line in kept)
