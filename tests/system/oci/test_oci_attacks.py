"""What a hostile container tries against the runtime itself."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from oci_runtime import Runtime

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

HELD = ["CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL"]
CAPABILITIES = dict.fromkeys(("bounding", "effective", "permitted"), HELD)


@pytest.fixture
def scripts(rootfs: Path) -> Path:
    """Programs in the root that lead to whatever executes them."""
    place = rootfs / "evil"
    if not place.exists():
        place.mkdir()
        (place / "link").symlink_to("/proc/self/exe")
        (place / "script").write_text("#!/proc/self/exe\n")
        (place / "script").chmod(0o755)
        (place / "nested").write_text("#!/evil/script\n")
        (place / "nested").chmod(0o755)
    return place


@pytest.mark.parametrize("program", ["/proc/self/exe", "/evil/link", "/evil/script", "/evil/nested"])
@pytest.mark.parametrize("how", ["run", "exec"])
def test_the_hosts_interpreter_is_never_a_program_of_the_container(
    oci: Runtime, bundle: Callable[..., Path], identity: str, scripts: Path, program: str, how: str
) -> None:
    """CVE-2019-5736. Were it the interpreter, it would run this script and say so."""
    words = (program, "-c", "print('host interpreter')")
    if how == "run":
        done = oci("run", "--bundle", str(bundle(*words, capabilities=CAPABILITIES)), identity)
    else:
        oci.quietly("run", "--detach", "--bundle", str(bundle("sleep", "1000", capabilities=CAPABILITIES)), identity)
        done = oci("exec", identity, *words)
        oci("delete", "--force", identity, check=True)
    assert done.returncode != 0
    assert "host interpreter" not in done.stdout


def test_where_a_filter_forbids_the_trampoline(
    oci: Runtime, bundle: Callable[..., Path], identity: str, scripts: Path
) -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["execveat"], "action": "SCMP_ACT_ERRNO"}],
    }

    def change(config: dict[str, dict[str, object]]) -> None:
        config["linux"]["seccomp"] = profile

    done = oci("run", "--bundle", str(bundle("sh", "-c", "exit 6", change=change)), identity)
    assert done.returncode == 6, done.stderr
    for program in ("/proc/self/exe", "/evil/link", "/evil/nested"):
        done = oci("run", "--bundle", str(bundle(program, "-c", "print('host')", change=change)), identity)
        assert done.returncode == 1
        assert "the interpreter of the host" in done.stderr or "leads out of the container" in done.stderr


def test_the_waiting_process_cannot_be_traced(oci: Runtime, bundle: Callable[..., Path], identity: str) -> None:
    """Who shares its PID namespace sees it, and can neither open its program nor read its memory."""
    oci.quietly("create", "--bundle", str(bundle("sleep", "1000", capabilities=CAPABILITIES)), identity)
    look = "for f in exe root cwd; do readlink /proc/1/$f && echo open; done; cat /proc/1/environ; cat /proc/1/cmdline"
    done = oci("exec", identity, "sh", "-c", look)
    assert "open" not in done.stdout
    assert sys.executable not in done.stdout
    assert "python" not in done.stdout
    oci("delete", identity, check=True)


def test_nothing_of_the_host_is_open_in_the_container(oci: Runtime, bundle: Callable[..., Path], identity: str) -> None:
    """CVE-2024-21626: a descriptor of a host directory that leaks is a way out."""
    oci.quietly("run", "--detach", "--bundle", str(bundle("sleep", "1000")), identity)
    pid = oci.state(identity)["pid"]
    opened = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
    assert opened == {"/dev/null"}
    done = oci("exec", "--cwd", "/proc/self/fd/8", identity, "pwd")
    assert done.returncode == 255
    oci("delete", "--force", identity, check=True)
