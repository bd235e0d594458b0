"""Machines for tests: network, PID and mount namespaces of their own, an sshd in each, a bridge between them.

The head has the bridge and no sshd. Everything dies with the processes that hold the namespaces.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from corten.engine.home import sweep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

_SSHD = """
ListenAddress {address}
HostKey {keys}/host
AuthorizedKeysFile {keys}/user.pub
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
LogLevel INFO
SetEnv CORTEN_HOME={home}
"""
_MACHINE = """
mount -t proc proc /proc && mount -t tmpfs tmpfs /run && mkdir /run/sshd && echo up && read go &&
exec /usr/sbin/sshd -D -e -f "$1"
"""


class Machine:
    """One of them. address: of its sshd; pid: of its first process, as seen from here."""

    def __init__(self, network: Network, number: int) -> None:
        self.address = f"10.99.0.{10 + number}"
        self._network, self._link = network, f"to{number}"
        self.home = network.directory / f"home{number}"
        self.home.mkdir()
        config = network.directory / f"sshd{number}"
        config.write_text(_SSHD.format(address=self.address, keys=network.directory, home=self.home))
        self._holder = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", _MACHINE, "sh", str(config)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        _expect(self._holder.stdout, "up")
        self.pid = int(Path(f"/proc/{self._holder.pid}/task/{self._holder.pid}/children").read_text().split()[0])
        network.head(f"ip link add {self._link} type veth peer name eth0 netns {self.pid}")
        network.head(f"ip link set {self._link} master br0 up")
        for words in (f"ip address add {self.address}/24 dev eth0", "ip link set eth0 up", "ip link set lo up"):
            _inside(self.pid, words)
        assert self._holder.stdin is not None
        self._holder.stdin.write("go\n")
        self._holder.stdin.flush()
        _expect(self._holder.stderr, "Server listening")

    def cut_off(self) -> None:
        """Nothing reaches it any more, and nobody hears of that."""
        self._network.head(f"ip link set {self._link} down")

    def kill(self) -> None:
        """All its processes at once, as when the power goes; and what its next start would sweep."""
        if self._holder.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
        self._holder.wait()
        for file in (self._holder.stdin, self._holder.stdout, self._holder.stderr):
            assert file is not None
            file.close()
        deadline = time.monotonic() + 10  # the kernel ends its processes one after the other
        while any((self.home / "containers").glob("*")) and time.monotonic() < deadline:
            sweep(str(self.home))


class Network:
    """The head, and keys for everybody. directory: for files, the test's own."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.machines: list[Machine] = []
        for name in ("host", "user"):
            words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(words, check=True, stdin=subprocess.DEVNULL)
        self._holder = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo up; exec sleep infinity"], stdout=subprocess.PIPE, text=True
        )
        _expect(self._holder.stdout, "up")
        for command in ("link add br0 type bridge", "address add 10.99.0.1/24 dev br0", "link set br0 up"):
            self.head(f"ip {command}")
        self.head("ip link set lo up")

    def machine(self) -> Machine:
        """One more."""
        self.machines.append(Machine(self, len(self.machines) + 1))
        self._know()
        return self.machines[-1]

    def _know(self) -> None:
        key = (self.directory / "host.pub").read_text()
        lines = [f"{machine.address} {key}" for machine in self.machines]
        (self.directory / "known_hosts").write_text("".join(lines))

    @property
    def ssh_options(self) -> tuple[str, ...]:
        """For the ssh of the head."""
        return (
            "-F", "none", "-i", str(self.directory / "user"), "-o", f"UserKnownHostsFile={self.directory}/known_hosts",
            "-o", "ServerAliveInterval=1", "-o", "ServerAliveCountMax=2", "-o", "ConnectTimeout=2",
        )  # fmt: skip

    def head(self, words: str) -> None:
        """Run a command in the head's network."""
        _inside(self._holder.pid, words)

    def python(self, script: str, *words: str) -> subprocess.Popen[str]:
        """A Python program in the head's network, with pipes."""
        return subprocess.Popen(
            ["nsenter", f"--net=/proc/{self._holder.pid}/ns/net", sys.executable, "-c", script, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        """All of it goes."""
        for machine in self.machines:
            machine.kill()
        self._holder.kill()
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()


def _inside(pid: int, words: str) -> None:
    command = ["nsenter", f"--net=/proc/{pid}/ns/net", *words.split()]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _expect(stream: IO[str] | None, word: str) -> None:
    assert stream is not None
    seen = []
    for line in stream:
        seen.append(line)
        if word in line:
            return
    raise AssertionError(f"it ended without saying {word!r}: {seen}")
