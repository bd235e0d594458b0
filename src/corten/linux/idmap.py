"""User and group ids across user namespaces: what may be mapped, and how a map gets into the kernel.

Rule 1: a map is a tuple of `IdMapping`; `check` it before the kernel sees it, since the kernel only says EINVAL.
Rule 2: the group map of an unprivileged writer needs `deny` in /proc/PID/setgroups first (user_namespaces(7)).
Rule 3: a map is written by us where the kernel lets us, else by newuidmap/newgidmap; which of the two is decided
        from our capabilities before anything is written, so a failed write is never hidden by another attempt.
"""

from __future__ import annotations

import os
from itertools import pairwise

from corten.errors import InvalidInput, KernelError, Unsupported
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_ID = 0xFFFF_FFFE  # 2**32-1 is (uid_t)-1, "no id"
MAX_LINES = 340  # UID_GID_MAP_MAX_EXTENTS, include/linux/user_namespace.h (since 4.15)
PAGE = 4096  # map_write() refuses a text of a page or more, kernel/user_namespace.c

_CAP_SETGID, _CAP_SETUID = 6, 7


class IdMapping(Record):
    """`size` ids beginning at `container_id` inside are those beginning at `host_id` outside."""

    container_id: int
    host_id: int
    size: int


class Subordinate(Record):
    """Ranges (first id, count) that a user may map besides its own ids: /etc/subuid and /etc/subgid."""

    uids: tuple[tuple[int, int], ...] = ()
    gids: tuple[tuple[int, int], ...] = ()


def single(container_id: int, host_id: int) -> tuple[IdMapping, ...]:
    """The map with one id, which needs no privilege when `host_id` is our own."""
    return (IdMapping(container_id, host_id, 1),)


def _words(mapping: IdMapping) -> str:
    inside, outside, last = mapping.container_id, mapping.host_id, mapping.size - 1
    return f"{inside}-{inside + last} -> {outside}-{outside + last}"


def render(maps: Sequence[IdMapping]) -> str:
    """The text of /proc/PID/uid_map; also what `parse` reads."""
    return "".join(f"{m.container_id} {m.host_id} {m.size}\n" for m in maps)


def parse(text: str) -> tuple[IdMapping, ...]:
    """A map from the text of /proc/PID/uid_map. Errors: `InvalidInput` naming the line."""
    maps = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or not all(word.isascii() and word.isdigit() for word in words):
            raise InvalidInput(f"id map line {number}: expected three numbers (inside, outside, count), got {line!r}")
        maps.append(IdMapping(*map(int, words)))
    return tuple(maps)


def check(maps: Sequence[IdMapping], name: str = "id map") -> None:
    """Refuse what the kernel would refuse with a bare EINVAL. `name` begins the error: `linux.uidMappings`.

    Errors: `InvalidInput` for an empty range, one beyond the last id (2**32-2), two that overlap (both are named),
    more lines (340) or text (under 4096 bytes) than the kernel takes.
    """
    for index, mapping in enumerate(maps):
        if mapping.size < 1:
            raise InvalidInput(f"{name}[{index}]: size is {mapping.size}; a range needs at least one id")
        for side, first in (("containerID", mapping.container_id), ("hostID", mapping.host_id)):
            if first < 0 or first + mapping.size - 1 > MAX_ID:
                raise InvalidInput(
                    f"{name}[{index}]: {side} {first} with size {mapping.size} leaves the ids 0-{MAX_ID}"
                )
    for side, pick in (("inside", 0), ("outside", 1)):
        ranges = sorted(((m.container_id, m.host_id)[pick], m.size, index) for index, m in enumerate(maps))
        for (first, size, one), (second, _, other) in pairwise(ranges):
            if second < first + size:
                low, high = sorted((one, other))
                raise InvalidInput(
                    f"{name}[{low}] and {name}[{high}] overlap {side}: {_words(maps[low])} and {_words(maps[high])}"
                )
    if len(maps) > MAX_LINES or len(render(maps)) >= PAGE:
        raise InvalidInput(f"{name}: {len(maps)} ranges are more than the kernel takes ({MAX_LINES} lines, one page)")


def to_host(container_id: int, maps: Sequence[IdMapping]) -> int | None:
    """The id outside; None where the map has none (the kernel then answers EINVAL or EOVERFLOW)."""
    for m in maps:
        if m.container_id <= container_id < m.container_id + m.size:
            return m.host_id + container_id - m.container_id
    return None


def to_container(host_id: int, maps: Sequence[IdMapping]) -> int | None:
    """The id inside; None where the map has none (shown inside as the overflow id, 65534)."""
    for m in maps:
        if m.host_id <= host_id < m.host_id + m.size:
            return m.container_id + host_id - m.host_id
    return None


# --- the ids of an ordinary user


def parse_subordinate(text: str, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
    """The ranges in the text of /etc/subuid whose owner is one of `names` (a login name, or a uid as text).

    Malformed lines and empty ranges are passed over, as newuidmap does (subuid(5)); ids that repeat are given once.
    """
    found: list[tuple[int, int]] = []
    for line in text.splitlines():
        words = line.strip().split(":")
        if len(words) != 3 or words[0] not in names or not (words[1].isdigit() and words[2].isdigit()):
            continue
        first, count = int(words[1]), int(words[2])
        for start, size in found:  # a user listed by name and by uid often has the same range twice
            if start <= first < start + size:
                count -= start + size - first
                first = start + size
        if count > 0 and not any(first < start < first + count for start, _ in found):
            found.append((first, count))
    return tuple(found)


def _login(user: str | int) -> tuple[str, int | None]:
    import pwd

    try:
        entry = pwd.getpwnam(user) if isinstance(user, str) else pwd.getpwuid(user)
    except KeyError:
        return (user, None) if isinstance(user, str) else ("", user)
    return entry.pw_name, entry.pw_uid


def _read(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def subordinate(user: str | int, subuid: str = "/etc/subuid", subgid: str = "/etc/subgid") -> Subordinate:
    """The subordinate ids of a user, given by login name or uid. Both files go by the user (subgid(5)).

    Ranges that come from elsewhere (`subid:` in nsswitch.conf) are not seen.
    """
    name, uid = _login(user)
    names = tuple(word for word in (name, "" if uid is None else str(uid)) if word)
    return Subordinate(parse_subordinate(_read(subuid), names), parse_subordinate(_read(subgid), names))


def find_program(name: str) -> str | None:
    """The program's path on PATH or in the system directories (PATH of a service may lack them); None if absent."""
    for directory in (*os.environ.get("PATH", "").split(":"), "/usr/bin", "/bin", "/usr/sbin"):
        path = f"{directory}/{name}"
        if directory.startswith("/") and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def _may_map(path: str) -> bool:
    if os.stat(path).st_mode & 0o4000:
        return True
    try:
        return bool(os.getxattr(path, "security.capability"))
    except OSError:
        return False


def subordinate_problem(uid: int) -> str:
    """Why the user cannot have more than one id in a container, with the remedy; empty if it can."""
    ranges, name = subordinate(uid), _login(uid)[0] or str(uid)
    for ids, file, option in ((ranges.uids, "/etc/subuid", "uids"), (ranges.gids, "/etc/subgid", "gids")):
        if not ids:
            return (
                f"{name} has no range in {file}: an administrator can add one with "
                f"`usermod --add-sub{option} 100000-165535 {name}`"
            )
    for program in ("newuidmap", "newgidmap"):
        path = find_program(program)
        if path is None:
            return f"{program} is not installed: install the package uidmap (Debian, Ubuntu) or shadow-utils (Fedora)"
        if not _may_map(path):
            return f"{path} has neither the set-uid bit nor file capabilities: reinstall its package"
    return ""


def around(own: int, inside: int, ranges: Sequence[tuple[int, int]]) -> tuple[IdMapping, ...]:
    """A map with `own` (outside) at `inside`; the ranges fill the ids from 0 up around it. Sorted by inside id."""
    maps, following = [IdMapping(inside, own, 1)], 0
    for start, count in ranges:
        first, left = start, count
        while left:
            if following == inside:
                following += 1
            size = min(left, inside - following) if following < inside else left
            maps.append(IdMapping(following, first, size))
            following, first, left = following + size, first + size, left - size
    return tuple(sorted(maps, key=lambda m: m.container_id))


def rootless_maps(
    uid: int, gid: int, container_uid: int = 0, container_gid: int = 0
) -> tuple[tuple[IdMapping, ...], tuple[IdMapping, ...]]:
    """The uid and gid maps for a user without privilege.

    Its own ids become `container_uid` and `container_gid` (0: root inside; its own ids again: podman's keep-id). The
    subordinate ranges fill the other ids from 0 up. Without ranges or without newuidmap the maps have one id each;
    `subordinate_problem(uid)` then says why and what to do.
    """
    if subordinate_problem(uid):
        return single(container_uid, uid), single(container_gid, gid)
    ranges = subordinate(uid)
    return around(uid, container_uid, ranges.uids), around(gid, container_gid, ranges.gids)


# --- into the kernel


def _effective() -> int:
    with open("/proc/self/status", "rb") as file:  # bytes: no codec to import after privileges were dropped
        for line in file:
            if line.startswith(b"CapEff:"):
                return int(line.split()[1], 16)
    raise KernelError("read CapEff of /proc/self/status", 0, "the line is not there; is /proc mounted?")


def _write(pid: int, name: str, text: str, hint: str) -> None:
    path = f"/proc/{pid}/{name}"
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())  # one write: the kernel takes a map whole or not at all
        finally:
            os.close(fd)
    except OSError as error:
        number = error.errno or 0
        what = ", ".join(text.splitlines())
        raise KernelError(f"write {what} to {path}", number, hint if number in (1, 13) else "") from None


def _run_helper(program: str, pid: int, maps: Sequence[IdMapping], file: str) -> None:
    path = find_program(program)
    what = ", ".join(map(_words, maps))
    if path is None:
        raise Unsupported(
            f"map {what}: {program} is not installed: install the package uidmap (Debian, Ubuntu) "
            "or shadow-utils (Fedora)"
        )
    numbers = [str(number) for m in maps for number in (m.container_id, m.host_id, m.size)]
    reader, writer = os.pipe()
    try:
        actions = [(os.POSIX_SPAWN_DUP2, writer, 2)]
        child = os.posix_spawn(path, [program, str(pid), *numbers], os.environ, file_actions=actions)
    except OSError as error:
        os.close(reader)
        raise KernelError(f"run {path}", error.errno or 0) from None
    finally:
        os.close(writer)
    with open(reader, "rb") as stream:
        said = stream.read().decode(errors="replace")
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status:
        why = " ".join(said.split()).rstrip(".") or f"exit status {status}"
        name = _login(os.getuid())[0] or str(os.getuid())
        raise Unsupported(
            f"map {what} of process {pid}: {why}: each outside range must be our own id or within a line of {file} "
            f"such as `{name}:100000:65536`"
        )


def write_maps(
    pid: int, uid_maps: Sequence[IdMapping], gid_maps: Sequence[IdMapping], setgroups_deny: bool | None = None
) -> None:
    """Give the new user namespace of `pid` its maps, once; the process must have made it and be dumpable.

    setgroups_deny: True denies setgroups(2) inside for good, False does not, None denies it where the kernel demands it
    (a group map written without CAP_SETGID). Errors: `InvalidInput` for maps that no kernel takes, `Unsupported` where
    newuidmap is needed and refuses or is missing, `KernelError` where the kernel refuses.
    """
    check(uid_maps, "uid map")
    check(gid_maps, "gid map")
    effective = _effective()
    own = tuple(map(len, (uid_maps, gid_maps))) == (1, 1) and uid_maps[0].size == gid_maps[0].size == 1
    own_uid = own and uid_maps[0].host_id == os.geteuid()
    own_gid = own and gid_maps[0].host_id == os.getegid()
    direct_uid = bool(effective >> _CAP_SETUID & 1) or own_uid
    privileged_gid = bool(effective >> _CAP_SETGID & 1)
    direct_gid = privileged_gid or own_gid
    must_deny = direct_gid and not privileged_gid
    if must_deny and setgroups_deny is False:
        raise Unsupported("a group map written without CAP_SETGID needs setgroups denied: pass setgroups_deny=True")
    if setgroups_deny or must_deny:
        _write(pid, "setgroups", "deny", "the user namespace must be new and ours")
    for name, maps, direct, file in (
        ("uid", uid_maps, direct_uid, "/etc/subuid"),
        ("gid", gid_maps, direct_gid, "/etc/subgid"),
    ):
        if direct:
            _write(
                pid,
                f"{name}_map",
                render(maps),
                f"the outside {name}s must be mapped in our own user namespace, "
                "the map not yet written, and the process dumpable; host id 0 also needs CAP_SETFCAP",
            )
        else:
            _run_helper(f"new{name}map", pid, maps, file)


def userns_fd(uid_maps: Sequence[IdMapping], gid_maps: Sequence[IdMapping]) -> int:
    """A close-on-exec descriptor of a new user namespace with these maps, for an idmapped mount (mount_setattr(2)).

    A file's id on disk is looked up as `container_id`, and shows as `host_id`. The namespace lives as long as the
    descriptor, or the mount; the helper process that it takes to make one is gone when this returns.
    """
    from corten.linux.syscalls import call, words

    check(uid_maps, "uid map")
    check(gid_maps, "gid map")
    clone_newuser, clone_clear_sighand, wall = 0x1000_0000, 0x1_0000_0000, 0x4000_0000
    reader, writer = os.pipe()
    # No exit signal: neither SIGCHLD handlers nor a waitpid(-1) of our caller ever see the helper.
    arguments = words(clone_newuser | clone_clear_sighand, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0)
    try:
        pid = call("clone3", arguments, 88)
    except OSError as error:
        os.close(reader)
        os.close(writer)
        hint = {
            1: "see kernel.unprivileged_userns_clone and kernel.apparmor_restrict_unprivileged_userns",
            28: "see user.max_user_namespaces",
        }.get(error.errno or 0, "")
        raise KernelError("clone a process in a new user namespace", error.errno or 0, hint) from None
    if pid == 0:
        try:
            call("prctl", 1, 9)  # PR_SET_PDEATHSIG, SIGKILL
            os.close(writer)
            os.read(reader, 1)  # ends when our parent dies before the prctl
        finally:
            os._exit(0)
    try:
        write_maps(pid, uid_maps, gid_maps)
        try:
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise KernelError(f"open /proc/{pid}/ns/user of our helper", error.errno or 0) from None
    finally:
        os.close(reader)
        os.close(writer)
        os.kill(pid, 9)
        os.waitpid(pid, wall)
