"""The process in which things are tried. Run as a program: `python -m corten.views.doctor.trials DIR`.

Rule 1: each trial is a forked child: what it makes (namespaces, mounts, filters) ends with it, and a trial that breaks
        takes nothing with it. Forking is why this is a process of its own: the caller may have threads.
Rule 2: an ordinary user tries in a user namespace of its own, as its containers would.
Rule 3: the output is one JSON object, name: [worked, words].
"""

from __future__ import annotations

import os
import sys

from corten.errors import Error
from corten.linux import clone, idmap, mounts, paths, pidfd, seccomp
from corten.views.doctor.abilities import Trial

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PATIENCE = 15
"""Seconds for one trial."""
_ALLOW = bytes((6, 0, 0, 0, 0, 0, 0xFF, 0x7F))  # BPF_RET | BPF_K, SECCOMP_RET_ALLOW


def run_all(home: str) -> dict[str, Trial]:
    """Every trial, from a process of its own, whoever calls. home: a directory on the file system of containers."""
    import json
    import subprocess

    import corten.views

    code = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(corten.views.__file__))))
    # The directory of the module first: it is how it was found here, installed or not.
    path = ":".join(part for part in (code, os.environ.get("PYTHONPATH", "")) if part)
    # -P: a module of the same name in the working directory, which may be anybody's, is not ours.
    words = [sys.executable, "-P", "-m", "corten.views.doctor.trials", home]
    done = subprocess.run(
        words, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": path}, timeout=300
    )
    try:
        found = json.loads(done.stdout)
    except ValueError:
        raise Error(f"doctor: its trials ended with {done.returncode}: {done.stderr.strip()[-300:]}") from None
    return {name: Trial(*row) for name, row in found.items()}


def main() -> None:
    """Try everything; the program's whole run."""
    from corten.json_text import dumps

    found = {}
    for name, trial in _trials(sys.argv[1]).items():
        one = attempt(trial)
        found[name] = [one.worked, one.words]
    sys.stdout.write(dumps(found) + "\n")


def attempt(trial: Callable[[], str]) -> Trial:
    """Do something in a child of this process, which must have one thread."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        import signal

        signal.alarm(PATIENCE)
        try:
            words = "1" + trial()
        except (Error, OSError) as error:
            words = "0" + _why(error)
        except BaseException as error:
            words = f"0{type(error).__name__}: {error}"
        os.write(writer, words.encode()[:4000])
        os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        said = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not said:
        return Trial(False, f"no answer in {PATIENCE} s" if status == -14 else f"the trial ended with {status}")
    return Trial(said[0] == "1", said[1:])


def _why(error: BaseException) -> str:
    if isinstance(error, mounts.MountError) and error.said:
        return f"{error.strerror} ({error.said})"
    return error.strerror if isinstance(error, OSError) and error.strerror else str(error)


def _trials(home: str) -> dict[str, Callable[[], str]]:
    kinds = {f"{kind} namespace": _of(_namespace, kind) for kind in clone.NAMESPACES if kind != "user"}
    return {
        "user namespace": _user_namespace,
        "id ranges": _ranges,
        "clone3": _clone3,
        "openat2": _openat2,
        "pidfd": _pidfd,
        **kinds,
        "mount calls": _mount_calls,
        "proc": _proc,
        "sysfs": _sysfs,
        "overlay on disk": _of(_overlay, home),
        "overlay in memory": _of(_overlay, ""),
        "id-mapped mounts": _of(_idmapped, home),
        "filter": _filter,
        "libseccomp": _libseccomp,
        "locks": _of(_locks, home),
        "nft": _nft,
        "pasta": _pasta,
        "criu": _criu,
    }


def _of(trial: Callable[[Any], str], argument: str) -> Callable[[], str]:
    return lambda: trial(argument)


def enter() -> None:
    """As an ordinary user: be root of a user namespace of one's own. As root: nothing."""
    uid, gid = os.geteuid(), os.getegid()
    if uid == 0:
        return
    clone.unshare("user")
    for name, text in (("setgroups", "deny"), ("uid_map", f"0 {uid} 1"), ("gid_map", f"0 {gid} 1")):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def _user_namespace() -> str:
    clone.unshare("user")
    return "made"


def _ranges() -> str:
    """More ids than one's own in a user namespace, with the maps that a container would get."""
    import signal

    uid = os.geteuid()
    if uid:
        uid_maps, gid_maps = idmap.rootless_maps(uid, os.getegid())
    else:
        ranges = idmap.subordinate(0)
        if not ranges.uids or not ranges.gids:
            raise Error("root has no range in /etc/subuid and /etc/subgid")
        uid_maps, gid_maps = idmap.around(0, 0, ranges.uids), idmap.around(0, 0, ranges.gids)
    problem = idmap.subordinate_problem(uid) if uid else ""
    if problem:
        raise Error(problem)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        clone.unshare("user")
        os.write(writer, b"1")
        while True:
            signal.pause()
    os.read(reader, 1)
    try:
        idmap.write_maps(child, uid_maps, gid_maps)
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
    return f"{sum(m.size for m in uid_maps)} users, {sum(m.size for m in gid_maps)} groups"


def _clone3() -> str:
    made = clone.clone3(0)
    if made.pid == 0:
        os._exit(0)
    os.waitpid(made.pid, 0)
    return "works"


def _openat2() -> str:
    root = os.open("/", os.O_PATH | os.O_DIRECTORY)
    os.close(paths.open_in_root(root, "/proc", os.O_PATH))
    return "works"


def _pidfd() -> str:
    os.close(pidfd.open_pid(os.getpid()))
    return "works"


def _namespace(kind: str) -> str:
    enter()
    clone.unshare(kind)
    return "made"


def _private_mounts() -> None:
    clone.unshare("mount")
    mounts.set_propagation("/", mounts.PRIVATE)


def _mount_calls() -> str:
    enter()
    _private_mounts()
    made = mounts.new("tmpfs", ("size=64k",), mounts.NOSUID)
    mounts.set_attributes(made, add=mounts.RDONLY)
    place = os.open("/tmp", os.O_PATH)
    mounts.attach(made, place)
    return "fsopen, fsmount, move_mount and mount_setattr work"


def _proc() -> str:
    enter()
    _private_mounts()
    clone.unshare("pid")
    one = attempt(lambda: "mounted" if mounts.new("proc") else "")
    if not one.worked:
        raise Error(one.words)
    return one.words


def _sysfs() -> str:
    enter()
    clone.unshare("network")
    _private_mounts()
    mounts.new("sysfs")
    return "mounted"


def _overlay(home: str) -> str:
    """An overlay whose writes go to that file system, or to memory; a file is written through it."""
    import shutil
    import tempfile

    owner = os.geteuid()
    top = tempfile.mkdtemp(prefix="doctor-", dir=home or "/tmp")
    try:
        # In a child: the namespace with the mounts ends before the directory is removed.
        one = attempt(lambda: _write_through(top, in_memory=not home, in_userns=owner != 0))
    finally:
        shutil.rmtree(top)
    if not one.worked:
        raise Error(one.words)
    return one.words


def _write_through(top: str, in_memory: bool, in_userns: bool) -> str:
    enter()
    _private_mounts()
    if in_memory:
        place = os.open(top, os.O_PATH)
        mounts.attach(mounts.new("tmpfs", ("size=1m",)), place)
    for name in ("lower", "upper", "work", "merged"):
        os.mkdir(f"{top}/{name}")
    extra = ("userxattr",) if in_userns else ()
    layers = (f"lowerdir={top}/lower", f"upperdir={top}/upper", f"workdir={top}/work", *extra)
    made = mounts.new("overlay", layers)
    place = os.open(f"{top}/merged", os.O_PATH)
    mounts.attach(made, place)
    with open(f"{top}/merged/written", "w") as file:
        file.write("1")
    if os.listdir(f"{top}/upper") != ["written"]:
        raise Error("what was written is not in the layer")
    os.unlink(f"{top}/upper/written")
    # The overlay's work directory is root's alone, which an ordinary user cannot look into when it removes it.
    os.chmod(f"{top}/work/work", 0o700)
    return "mounted and written to"


def _idmapped(home: str) -> str:
    if os.geteuid():
        raise Error("only root can make one")
    userns = idmap.userns_fd((idmap.IdMapping(0, 100000, 65536),), (idmap.IdMapping(0, 100000, 65536),))
    tree = mounts.open_tree(home)
    mounts.set_attributes(tree, add=mounts.IDMAP, userns=userns)
    return "mounted"


def _filter() -> str:
    seccomp.set_no_new_privs()
    seccomp.load(_ALLOW)
    return "loaded"


def _libseccomp() -> str:
    try:
        from corten.linux import seccomp_rules

        return seccomp_rules.library_path()
    except (ImportError, RuntimeError) as error:
        raise Error(str(error)) from None


def _locks(home: str) -> str:
    import fcntl
    import tempfile

    with tempfile.TemporaryFile(dir=home) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return "work"


def _run(name: str, *words: str) -> str:
    import subprocess

    path = idmap.find_program(name)
    if path is None:
        raise Error("not installed")
    try:
        done = subprocess.run(
            [path, *words], capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=PATIENCE - 5
        )
    except subprocess.TimeoutExpired:
        raise Error(f"{' '.join((name, *words))}: no end in {PATIENCE - 5} s") from None
    if done.returncode:
        said = [line for line in (done.stderr + done.stdout).splitlines() if line.strip()]
        raise Error(f"{' '.join((name, *words))}: {said[-1].strip() if said else f'exit code {done.returncode}'}")
    return done.stdout.strip()


def _nft() -> str:
    enter()
    clone.unshare("network")
    _run("nft", "add table inet corten_doctor")
    return "makes a table in a network namespace"


def _pasta() -> str:
    if not os.geteuid():  # it gives up being root, and then may not map ids
        path = idmap.find_program("pasta")
        if path is None:
            raise Error("not installed")
        return f"{path}; root's own containers do without"
    try:
        os.close(os.open("/dev/net/tun", os.O_RDWR))
    except OSError as error:
        raise Error(f"/dev/net/tun: {error.strerror}") from None
    _run("pasta", "--config-net", "--quiet", "--", "true")
    return "connects a network namespace"


def _criu() -> str:
    said = _run("criu", "check")
    return said.splitlines()[-1] if said else "its own check is content"


if __name__ == "__main__":
    main()
