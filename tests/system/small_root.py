"""A root file system of one static program, for tests that look at the container and not at what is in it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import corten

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CORTEN = str(Path(sys.executable).parent / "corten")
BUSYBOX = "/usr/bin/busybox"

PASSWD = "root:x:0:0:root:/root:/bin/sh\nalice:x:1001:1002:Alice:/home/alice:/bin/sh\n"
GROUP = "root:x:0:\nalice:x:1002:\nvideo:x:44:alice\nextra:x:77:\n"


def make(path: Path) -> Path:
    """Fill a directory with busybox, its links, and two users."""
    (path / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for name in _applets():
        if name != "busybox":
            (path / "bin" / name).symlink_to("busybox")
    for name in ("etc", "tmp", "root", "dev", "proc", "sys", "mnt"):
        (path / name).mkdir()
    (path / "tmp").chmod(0o1777)
    (path / "etc/passwd").write_text(PASSWD)
    (path / "etc/group").write_text(GROUP)
    return path


@cache
def _applets() -> tuple[str, ...]:
    return tuple(subprocess.run([BUSYBOX, "--list"], capture_output=True, text=True, check=True).stdout.split())


@cache
def shared() -> str:
    """One for all tests, in the tests' home; nothing may be written to it."""
    path = Path(os.environ["CORTEN_HOME"]) / "small-root"
    if not path.exists():
        make(path)
    return str(path)


def sh(script: str, **options: Any) -> str:
    """What a shell script prints in a container with the small root and a throwaway layer; it must end well."""
    result = run(script, **options)
    assert result.exit_code == 0, (result.reason, result.stderr)
    return str(result.stdout)


def run(script: str, **options: Any) -> corten.Result:
    """The same, however it ends."""
    where = {} if "rootfs" in options else {"rootfs": shared()}
    return corten.run(argv=["sh", "-c", script], **{"writable": "throwaway", **where, **options})


def start(script: str, **options: Any) -> corten.Container:
    """A shell script in the same place, going on beside the test."""
    where = {} if "rootfs" in options else {"rootfs": shared()}
    return corten.start(argv=["sh", "-c", script], **{"writable": "throwaway", **where, **options})


def line(container: corten.Container) -> str:
    """The next line that a container writes."""
    assert container.stdout is not None
    return container.stdout.readline().decode().rstrip("\n")


def refused(*words: str) -> subprocess.CompletedProcess[str]:
    """How `corten run` ends that should not start: nothing on stdout, one line on stderr."""
    done = subprocess.run(
        [CORTEN, "run", *words], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False
    )
    assert done.stdout == "", done.stdout
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("corten: "), done.stderr
    return done
