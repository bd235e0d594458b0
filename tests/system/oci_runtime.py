"""The runtimes that the OCI tests call, and the configuration that they begin with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CORTEN_OCI = str(Path(sys.executable).parent / "corten-oci")
PODMAN_PARENT = f"corten{os.getpid()}-podman"  # the control group below which podman is to make its own
TIMEOUT = 60  # seconds; nothing here may hang


class Runtime:
    """One OCI runtime with a root directory of its own, and the ids of what was made with it."""

    def __init__(self, program: str, root: Path) -> None:
        self.program, self.root = program, root

    def __call__(self, *words: str, check: bool = False, **options: Any) -> subprocess.CompletedProcess[str]:
        settings: dict[str, Any] = {
            "capture_output": True, "text": True, "timeout": TIMEOUT, "stdin": subprocess.DEVNULL, **options,
        }  # fmt: skip
        done = subprocess.run([self.program, "--root", str(self.root), *words], check=False, **settings)
        assert not check or done.returncode == 0, (words, done.stderr, done.stdout)
        return done

    def quietly(self, *words: str) -> None:
        """A command whose streams become the container's, and so must not be pipes that are read to their end."""
        done = self(*words, capture_output=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        assert done.returncode == 0, words

    def state(self, identity: str) -> dict[str, Any]:
        """The state, as `state` prints it."""
        found: dict[str, Any] = json.loads(self("state", identity, check=True).stdout)
        return found

    def clear(self) -> None:
        """Delete whatever is left, and reap what has become ours by it."""
        if self.root.is_dir():
            for name in os.listdir(self.root):
                self("delete", "--force", name)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass


def make_root(root: Path) -> Path:
    """A root file system in an empty directory: the machine's own /usr is bound into it by `config_of`."""
    root.chmod(0o755)
    for name in ("usr", "proc", "dev", "sys", "etc", "tmp", "root"):
        (root / name).mkdir()
    for name in ("bin", "lib", "lib64", "sbin"):
        (root / name).symlink_to(f"usr/{name}")
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nsomeone:x:1000:1000::/home/someone:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    return root


def config_of(rootfs: Path, *args: str, **process: Any) -> dict[str, Any]:
    """A configuration like that of `runc spec`."""
    everything = ["nosuid", "noexec", "nodev"]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "args": list(args),
            "env": ["PATH=/usr/sbin:/usr/bin:/sbin:/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "capabilities": {
                name: ["CAP_KILL", "CAP_CHOWN", "CAP_NET_BIND_SERVICE"]
                for name in ("bounding", "effective", "permitted")
            },
            "noNewPrivileges": True,
            # runc 1.1 passes on the soft limit that Go has raised for itself.
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": 512}],
            **process,
        },
        "root": {"path": str(rootfs), "readonly": True},
        "hostname": "inside",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {
                "destination": "/dev", "type": "tmpfs", "source": "tmpfs",
                "options": ["nosuid", "mode=755", "size=65536k"],
            },
            {
                "destination": "/dev/pts", "type": "devpts", "source": "devpts",
                "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            },
            {"destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": [*everything, "mode=1777"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": [*everything, "ro"]},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
            {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev"]},
        ],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount")],
            "maskedPaths": ["/proc/kcore", "/proc/acpi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/sys"],
        },
    }  # fmt: skip
