"""An ordinary user with nothing of its own but a directory: how tests run Corten as one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path

import pytest

import corten.records
import small_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UID = 64321
RANGE = (2_200_000, 65536)
RUN = "from corten.cli.main import command; command()"
_NEEDED = (
    "cloudpickle",
    "pyseccomp.py", "isal", "zstandard", "httpx", "httpcore", "h11", "anyio", "idna", "certifi", "typing_extensions.py",
)  # fmt: skip


class User:
    """A user id that the machine does not know, with all that it needs to run Corten.

    top: the directory of it all, for everybody to enter; home: the user's own; code: a copy of Corten that it can
    read; root: a small root file system of its own; python: an interpreter that it can run.
    """

    def __init__(self) -> None:
        self.before: tuple[str, ...] = ()
        self.top = Path(tempfile.mkdtemp(prefix="corten-user-"))
        try:
            self._furnish()
        except BaseException:
            self.close()
            raise

    def _furnish(self) -> None:
        self.top.chmod(0o755)
        self.home = self.top / "home"
        self.home.mkdir(mode=0o700)
        self.code = self.top / "code"
        _copy_code(self.code)
        self.root = small_root.make(self.top / "root")
        for path in (self.home, *self.root.rglob("*"), self.root):
            os.chown(path, UID, UID, follow_symlinks=False)
        self.python = self._reachable_python()

    def _reachable_python(self) -> str:
        """One that the user may execute: the tests' own often lies below /root, which is closed to others."""
        names = (sys.executable, os.path.realpath(sys.executable), "/usr/bin/python3.11", "/usr/bin/python3")
        for name in names:
            self.python = name
            if os.access(name, os.X_OK) and self.run_python("import corten.cli.run, pyseccomp").returncode == 0:
                return name
        said = f"an ordinary user can run none of {', '.join(names)}: install Debian's python3"
        pytest.fail(said, pytrace=False)

    def prefix(self) -> list[str]:
        """What turns the words of a command into the same command as this user."""
        identity = ["setpriv", f"--reuid={UID}", f"--regid={UID}", "--clear-groups"]
        environment = [f"HOME={self.home}", "PATH=/usr/bin:/bin:/usr/sbin", f"PYTHONPATH={self.code}"]
        return [*self.before, *identity, "env", "-i", *environment, "PYTHONDONTWRITEBYTECODE=1"]

    def process(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run any command as this user."""
        settings = {"capture_output": True, "text": True, "timeout": 60, "stdin": subprocess.DEVNULL, "cwd": self.home}
        return subprocess.run([*self.prefix(), *words], check=False, **{**settings, **options})

    def run_python(self, code: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a program in Python as this user."""
        return self.process(self.python, "-c", code, **options)

    def corten_words(self, *words: str) -> list[str]:
        """The command `corten WORDS` as this user."""
        return [*self.prefix(), self.python, "-c", RUN, *words]

    def corten(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run `corten WORDS` as this user, however it ends."""
        return self.process(self.python, "-c", RUN, *words, **options)

    def sh(self, script: str, *words: str, **options: Any) -> str:
        """What a shell script prints in a container with the small root and a throwaway layer; it must end well."""
        where = ("--rootfs", str(self.root), "--writable", "throwaway")
        done = self.corten("run", *where, *words, "sh", "-c", script, **options)
        assert (done.returncode, done.stderr) == (0, ""), (done.stdout, done.stderr)
        return done.stdout

    def leftovers(self) -> list[str]:
        """What is left of containers in the user's home."""
        kept = self.home / ".local/share/corten"
        return [str(path) for part in ("containers", "names") for path in (kept / part).glob("*")]

    def with_ranges(self, *cover: str) -> User:
        """The same user with a name and subordinate ids, which only its own processes see. cover: programs to hide."""
        twin = User.__new__(User)
        twin.__dict__.update(self.__dict__)
        name = "cortentester"
        texts = {
            "passwd": Path("/etc/passwd").read_text() + f"{name}:x:{UID}:{UID}::{self.home}:/bin/sh\n",
            "subuid": f"{name}:{RANGE[0]}:{RANGE[1]}\n",
            "subgid": f"{name}:{RANGE[0]}:{RANGE[1]}\n",
        }
        script = ""
        for file, text in texts.items():
            path = self.top / file
            path.write_text(text)
            path.chmod(0o644)
            script += f"mount --bind {path} /etc/{file} && "
        script += "".join(f"mount --bind /dev/null {program} && " for program in cover)
        twin.before = ("unshare", "--mount", "sh", "-c", f'{script}exec "$@"', "sh")
        return twin

    def close(self) -> None:
        """Remove all of it, also what a mistake of Corten has left there."""
        subprocess.run(["rm", "-rf", str(self.top)], check=True)


def _copy_code(target: Path) -> None:
    package = Path(corten.records.__file__).parent
    shutil.copytree(package, target / "corten", ignore=shutil.ignore_patterns("__pycache__"))
    installed = Path(sysconfig.get_path("purelib"))
    for name in _NEEDED:
        path = installed / name
        if path.is_dir():
            shutil.copytree(path, target / name)
        elif path.exists():
            shutil.copy(path, target / name)
    for directory, _, files in os.walk(target):
        Path(directory).chmod(0o755)
        for file in files:
            Path(directory, file).chmod(0o644)
