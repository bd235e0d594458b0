"""The root file system of a base image: mmdebstrap's work and what is tidied after it. In a helper process of its own.

Rule 1: called through `helper.call`, as root or as root of a user namespace with all ids of an ordinary user, so that
        both get the same files. In a mount namespace: what mmdebstrap mounts is seen by nobody else.
Rule 2: mmdebstrap is the first process of a PID namespace and dies with the helper, and all that it started with it.
"""

from __future__ import annotations

import os
import time

from corten.errors import Error
from corten.linux import clone, process
from corten.runtime.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

CONFIGURED_AT = 315532800
"""1980: the earliest time that all formats can hold. Unix time, s. Programs that are configured are told this one."""
_OF_THIS_MACHINE = ("etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/lib/dbus/machine-id",
                    "var/cache/ldconfig/aux-cache", "var/log/bootstrap.log", "var/log/apt/eipp.log.xz")  # fmt: skip


def fill(words: Sequence[str], environment: dict[str, str], root: str, said: int) -> tuple[int, str]:
    """Have mmdebstrap (`words`) fill `root`. What it says is written to the descriptor `said`.

    The Unix time in seconds of the newest file that came from a package, and `name=version …` of the packages.
    Error: it failed, and its own words.
    """
    began = int(time.time())
    _run(words, environment, said)
    return _tidy(root, began), _installed(root)


def _run(words: Sequence[str], environment: dict[str, str], said: int) -> None:
    import subprocess

    clone.unshare("pid")  # of the children
    settings = {"SOURCE_DATE_EPOCH": str(CONFIGURED_AT), "LC_ALL": "C.UTF-8"}
    last: list[str] = []
    with (
        open(said, "wb", 0) as told,
        subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            env={**environment, **settings}, cwd="/", preexec_fn=lambda: process.die_with_parent(9),  # noqa: PLW1509
        ) as running,
    ):  # fmt: skip
        assert running.stdout is not None
        for line in running.stdout:
            told.write(line)
            text = line.decode(errors="replace").strip()
            if text.startswith("E: ") and "failed to run" not in text:
                last.append(text[3:])
    if running.returncode:
        raise Error(last[0] if last else f"mmdebstrap ended with {running.returncode}")


def _tidy(root: str, began: int) -> int:
    """Take out what is of this machine; the time of the newest file that came from a package, in Unix seconds."""
    for name in _OF_THIS_MACHINE:
        try:
            os.unlink(f"{root}/{name}")
        except FileNotFoundError:
            continue
    remove_tree(f"{root}/dev")
    os.mkdir(f"{root}/dev", 0o755)
    newest = CONFIGURED_AT
    for top, directories, files in os.walk(root):
        for name in (*directories, *files):
            seconds = int(os.lstat(os.path.join(top, name)).st_mtime)
            if newest < seconds < began:
                newest = seconds
    return newest


def _installed(root: str) -> str:
    found = []
    with open(f"{root}/var/lib/dpkg/status", encoding="utf-8", errors="replace") as file:
        for block in file.read().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
            if fields.get("Status", "").endswith(" installed"):
                found.append(f"{fields['Package']}={fields['Version']}")
    return " ".join(sorted(found))
