"""Capabilities given up for good, seen in /proc and by what is then denied. The process that changes is a child."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable

import pytest

from corten.errors import Unsupported
from corten.linux import capabilities
from corten.linux.capabilities import DEFAULT, Sets, mask
from corten.linux.syscalls import call

HELD = capabilities.current()
FIVE = ("CAP_CHOWN", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_NET_BIND_SERVICE")


def in_child(body: Callable[[], object]) -> str:
    """What `body` returned, as text, from a process of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            answer = str(body())
        except BaseException:
            answer = traceback.format_exc()
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        answer = file.read()
    assert os.waitpid(pid, 0)[1] == 0
    return answer


def become(uid: int, sets: Sets) -> None:
    capabilities.drop_bounding(sets.bounding)
    capabilities.keep_across_setuid()
    os.setgroups([])
    os.setresgid(uid, uid, uid)
    os.setresuid(uid, uid, uid)
    capabilities.set_sets(sets)
    capabilities.raise_ambient(sets.ambient)


def status(pid: int | str = "self") -> dict[str, int]:
    with open(f"/proc/{pid}/status") as file:
        lines = (line.split(":") for line in file if line.startswith("Cap"))
        return {key: int(value, 16) for key, value in lines}


CASES = {
    "default": DEFAULT,
    "nothing": Sets(),
    "ambient": Sets(FIVE, FIVE, FIVE, FIVE, FIVE),
    "different": Sets(
        bounding=FIVE,
        effective=("CAP_KILL",),
        inheritable=("CAP_CHOWN", "CAP_SETUID"),
        permitted=("CAP_CHOWN", "CAP_KILL", "CAP_SETUID"),
        ambient=("CAP_SETUID",),
    ),
    "only bounding": Sets(bounding=FIVE),
}


@pytest.mark.parametrize("uid", [0, 65534])
@pytest.mark.parametrize("case", CASES)
def test_all_five_sets_match_exactly(uid: int, case: str) -> None:
    sets = CASES[case]

    def body() -> object:
        become(uid, sets)
        return status() | {"same": int(capabilities.current() == sets), "uid": os.getresuid()}

    assert in_child(body) == str(
        {
            "CapInh": mask(sets.inheritable),
            "CapPrm": mask(sets.permitted),
            "CapEff": mask(sets.effective),
            "CapBnd": mask(sets.bounding),
            "CapAmb": mask(sets.ambient),
            "same": 1,
            "uid": (uid, uid, uid),
        }
    )


@pytest.mark.parametrize(("uid", "expected"), [(0, FIVE), (65534, ("CAP_KILL",))])
def test_after_an_exec(uid: int, expected: tuple[str, ...]) -> None:
    """Root gets the bounding set, another user the ambient one."""
    one = ("CAP_KILL",)

    def body() -> object:
        become(uid, Sets(FIVE, one, one, one, one))
        with os.popen("exec cat /proc/self/status") as output:
            lines = dict(line.split(":") for line in output)
        return capabilities.names(lines["CapEff"])

    assert in_child(body) == str(expected)


def _refused(act: Callable[[], object]) -> str:
    try:
        act()
    except OSError as error:
        return type(error).__name__
    return "done"


def _raw_socket() -> None:
    import socket

    socket.socket(socket.AF_INET, socket.SOCK_RAW, 1).close()


@pytest.mark.parametrize("capability", ["CAP_CHOWN", "CAP_NET_RAW", "CAP_MKNOD", "CAP_SYS_ADMIN", "CAP_SYS_CHROOT"])
def test_a_dropped_one_is_denied(capability: str, tmp_path: object) -> None:
    file = f"{tmp_path}/file"
    with open(file, "w"):
        pass
    acts: dict[str, Callable[[], object]] = {
        "CAP_CHOWN": lambda: os.chown(file, 5, 5),
        "CAP_NET_RAW": _raw_socket,
        "CAP_MKNOD": lambda: os.mknod(f"{tmp_path}/null", 0o20600, os.makedev(1, 3)),
        "CAP_SYS_ADMIN": lambda: call("unshare", 0x04000000),  # CLONE_NEWUTS
        "CAP_SYS_CHROOT": lambda: os.chroot("/"),
    }

    def with_sets(keep: tuple[str, ...]) -> str:
        def body() -> object:
            become(0, Sets(bounding=keep, effective=keep, permitted=keep))
            return _refused(acts[capability])

        return in_child(body)

    rest = tuple(name for name in HELD.permitted if name != capability)
    assert with_sets(rest) == "PermissionError"
    assert with_sets((capability,)) == "done"


def test_dropped_for_good() -> None:
    def body() -> object:
        become(0, Sets(bounding=FIVE, effective=FIVE, permitted=FIVE))
        again = _refused(lambda: call("capset", capabilities._header(), b"\xff" * 12 + b"\0" * 12))
        with os.popen("exec cat /proc/self/status") as output:  # root's exec gives the bounding set back, no more
            lines = dict(line.split(":") for line in output)
        return again, capabilities.names(lines["CapPrm"])

    assert in_child(body) == str(("PermissionError", FIVE))


def test_what_is_not_held_is_named() -> None:
    """This test makes itself lack CAP_NET_ADMIN, whatever the machine gave."""
    without = tuple(name for name in HELD.permitted if name != "CAP_NET_ADMIN")
    asked = ("CAP_KILL", "CAP_NET_ADMIN")

    def attempt(act: Callable[[bool], None]) -> str:
        def body() -> object:
            become(0, Sets(bounding=without, effective=without, permitted=without, inheritable=without))
            try:
                act(False)
            except Unsupported as error:
                first = str(error)
            act(True)
            return f"{first} | {','.join(capabilities.current().permitted)}"

        return in_child(body)

    text = attempt(lambda only: capabilities.drop_bounding((*asked, "CAP_SETPCAP"), only))
    assert text.startswith("capabilities: cannot give CAP_NET_ADMIN (bounding set): this process does not hold it")
    text = attempt(lambda only: capabilities.set_sets(Sets(effective=asked, permitted=asked), only))
    assert text.startswith("capabilities: cannot give CAP_NET_ADMIN (effective set): this process does not hold it")
    assert text.endswith("| CAP_KILL")
    text = attempt(lambda only: capabilities.raise_ambient(asked, only))
    assert text.startswith("capabilities: cannot give CAP_NET_ADMIN (ambient set): this process does not hold it")


def test_bounding_set_without_setpcap() -> None:
    def body() -> object:
        capabilities.set_sets(Sets(permitted=("CAP_KILL",), effective=("CAP_KILL",)))
        try:
            capabilities.drop_bounding(())
        except Unsupported as error:
            return error
        return "dropped"

    expected = "capabilities: cannot drop CAP_CHOWN from the bounding set: this process does not hold CAP_SETPCAP"
    assert in_child(body).startswith(expected)


def test_bounding_set_that_needs_no_change_needs_no_right() -> None:
    def body() -> object:
        capabilities.drop_bounding(FIVE)
        capabilities.set_sets(Sets())
        capabilities.drop_bounding(FIVE)
        return capabilities.current().bounding

    assert in_child(body) == str(FIVE)


def test_keeping_across_setuid_ends() -> None:
    pr_get_keepcaps = 7

    def body() -> object:
        capabilities.keep_across_setuid()
        during = call("prctl", pr_get_keepcaps, 0, 0, 0, 0)
        capabilities.set_sets(Sets(permitted=FIVE))
        return during, call("prctl", pr_get_keepcaps, 0, 0, 0, 0)

    assert in_child(body) == "(1, 0)"


def test_an_inherited_ambient_set_is_not_kept() -> None:
    one = ("CAP_KILL",)

    def body() -> object:
        capabilities.set_sets(Sets(FIVE, FIVE, FIVE, FIVE))
        capabilities.raise_ambient(FIVE)
        capabilities.set_sets(Sets(FIVE, one, one, one))
        capabilities.raise_ambient(())
        return capabilities.current().ambient

    assert in_child(body) == "()"
