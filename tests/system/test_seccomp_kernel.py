"""Filters in the kernel: each action seen, the default profile attacked, ordinary programs under it.

The process that loads a filter is a child; system calls are made raw, by number.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import select
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

from corten.errors import KernelError, Unsupported
from corten.linux import capabilities, seccomp
from corten.linux.capabilities import DEFAULT, Sets
from corten.linux.seccomp import Seccomp, SyscallArg, SyscallRule
from corten.linux.syscalls import MACHINE, NUMBERS
from corten.runtime.seccomp_default import default_profile

INTEL = MACHINE == "x86_64"
# name: (x86_64, aarch64), as in the kernel's tables
_TABLE = {
    "clone": (56, 220), "kexec_load": (246, 104), "kcmp": (312, 272), "request_key": (249, 218), "reboot": (169, 142),
    "open_by_handle_at": (304, 265), "socket": (41, 198), "userfaultfd": (323, 282), "perf_event_open": (298, 241),
    "io_uring_setup": (425, 425), "finit_module": (313, 273), "swapon": (167, 224), "syslog": (103, 116),
    "settimeofday": (164, 170), "process_madvise": (440, 440), "ioctl": (16, 29),
    "getppid": (110, 173), "quotactl": (179, 60), "fanotify_init": (300, 262),
}  # fmt: skip
CALLS = NUMBERS | {name: pair[not INTEL] for name, pair in _TABLE.items()}

_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long


def attempt(number: int | str, *args: int) -> str:
    """`ok`, or the name of the error."""
    value = CALLS[number] if isinstance(number, str) else number
    result = _syscall(ctypes.c_long(value), *(ctypes.c_ulong(arg) for arg in args))
    return "ok" if result >= 0 else errno.errorcode[ctypes.get_errno()]


def child(body: Callable[[], object], program: bytes | None = None, flags: tuple[str, ...] = ()) -> tuple[str, int]:
    """What `body` returned in a process with this filter, as text, and the wait status of the process."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        try:
            if program is not None:
                seccomp.set_no_new_privs()
                seccomp.load(program, flags)
            answer = str(body())
        except BaseException:
            answer = traceback.format_exc()
        os.write(writer, answer.encode())
        os._exit(0)
    os.close(writer)
    with open(reader) as file:
        answer = file.read()
    return answer, os.waitpid(pid, 0)[1]


def one_rule(action: str, errno_ret: int | None = None, *args: SyscallArg, name: str = "getppid") -> bytes:
    return seccomp.compile(Seccomp("SCMP_ACT_ALLOW", syscalls=(SyscallRule((name,), action, errno_ret, args),)))


# --- actions


@pytest.mark.parametrize(
    ("action", "errno_ret", "expected"),
    [
        ("SCMP_ACT_ERRNO", None, "EPERM"),
        ("SCMP_ACT_ERRNO", 18, "EXDEV"),
        ("SCMP_ACT_ERRNO", 0, "ok"),  # the call is not made, and looks as if it had been
        ("SCMP_ACT_LOG", None, "ok"),
        ("SCMP_ACT_ALLOW", None, "ok"),
        ("SCMP_ACT_TRACE", None, "ENOSYS"),  # nobody traces
    ],
)
def test_actions_that_answer(action: str, errno_ret: int | None, expected: str) -> None:
    assert child(lambda: attempt("getppid"), one_rule(action, errno_ret)) == (expected, 0)


@pytest.mark.parametrize("action", ["KILL", "KILL_PROCESS", "KILL_THREAD", "TRAP"])
def test_actions_that_kill(action: str) -> None:
    text, status = child(lambda: attempt("getppid"), one_rule(f"SCMP_ACT_{action}"))
    assert text == ""
    assert os.WIFSIGNALED(status)
    assert os.WTERMSIG(status) == 31  # SIGSYS


def test_a_trap_can_be_caught() -> None:
    def body() -> object:
        import signal

        seen: list[int] = []
        signal.signal(signal.SIGSYS, lambda number, frame: seen.append(number))
        seccomp.set_no_new_privs()
        seccomp.load(one_rule("SCMP_ACT_TRAP"))
        os.getppid()
        return seen

    assert child(body) == ("[31]", 0)


@pytest.mark.parametrize(("action", "survives"), [("SCMP_ACT_KILL_THREAD", True), ("SCMP_ACT_KILL_PROCESS", False)])
def test_thread_or_process(action: str, survives: bool) -> None:
    """A thread made without Python, which would wait for a lock that the dead thread holds."""

    def body() -> object:
        libc = ctypes.CDLL(None)
        thread = ctypes.c_ulong()
        # the thread's body is getppid itself, then it ends
        libc.pthread_create(ctypes.byref(thread), None, libc.getppid, None)
        tasks = f"/proc/{os.getpid()}/task"
        while len(os.listdir(tasks)) > 1:
            os.sched_yield()
        return "went on"

    text, status = child(body, one_rule(action))
    assert text == ("went on" if survives else "")
    assert os.WIFSIGNALED(status) != survives


def test_notify_delivers() -> None:
    """The listener's descriptor gets the call of the child and answers it with a number of its own."""
    received = 0xC0502100  # SECCOMP_IOCTL_NOTIF_RECV: 80 bytes
    send = 0xC0182101  # SECCOMP_IOCTL_NOTIF_SEND: 24 bytes
    program = one_rule("SCMP_ACT_NOTIFY")

    def body() -> object:
        import fcntl

        seccomp.set_no_new_privs()
        fd = seccomp.load(program, ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"))
        assert fd is not None
        inheritable = os.get_inheritable(fd)
        reader, writer = os.pipe()
        pid = os.fork()
        if pid == 0:
            result = _syscall(ctypes.c_long(CALLS["getppid"]))
            os.write(writer, str(result).encode())
            os._exit(0)
        assert select.select([fd], [], [], 20)[0]
        request = bytearray(80)
        fcntl.ioctl(fd, received, request)
        cookie, caller, _, number = struct.unpack_from("=QIIi", request)
        fcntl.ioctl(fd, send, struct.pack("=QqiI", cookie, 4711, 0, 0))
        answer = os.read(reader, 99).decode()
        os.waitpid(pid, 0)
        return inheritable, caller == pid, number == CALLS["getppid"], answer

    assert child(body) == ("(False, True, True, '4711')", 0)


def test_no_listener_no_descriptor() -> None:
    assert child(lambda: seccomp.load(one_rule("SCMP_ACT_ERRNO")), b"\x06\0\0\0\0\0\xff\x7f") == ("None", 0)


@pytest.mark.parametrize("flag", ["LOG", "SPEC_ALLOW", "TSYNC"])
def test_flags_are_taken(flag: str) -> None:
    flags = (f"SECCOMP_FILTER_FLAG_{flag}",)
    assert child(lambda: attempt("getppid"), one_rule("SCMP_ACT_ERRNO"), flags) == ("EPERM", 0)


def test_without_no_new_privs_nor_rights() -> None:
    def body() -> object:
        capabilities.set_sets(Sets())
        try:
            seccomp.load(one_rule("SCMP_ACT_ERRNO"))
        except Unsupported as error:
            return error
        return "loaded"

    text, _ = child(body)
    assert text.startswith("load the system call filter: Permission denied (EACCES): set no_new_privs before")


def test_a_filter_that_is_none() -> None:
    def body() -> object:
        seccomp.set_no_new_privs()
        try:
            seccomp.load(bytes(8))
        except KernelError as error:
            return error
        return "loaded"

    assert child(body)[0] == "load the system call filter: Invalid argument (EINVAL): the filter is not valid"


# --- operators


@pytest.mark.parametrize(
    ("op", "refused"),
    [
        ("NE", (3, 5, 12, 1 << 32 | 4)), ("LT", (3,)), ("LE", (3, 4)), ("EQ", (4,)), ("GE", (4, 5, 12, 1 << 32 | 4)),
        ("GT", (5, 12, 1 << 32 | 4)),
    ],
)  # fmt: skip
def test_operators(op: str, refused: tuple[int, ...]) -> None:
    values = (3, 4, 5, 12, 1 << 32 | 4)
    program = one_rule("SCMP_ACT_ERRNO", 18, SyscallArg(1, 4, 0, f"SCMP_CMP_{op}"))
    answer, _ = child(lambda: [value for value in values if attempt("getppid", 0, value) == "EXDEV"], program)
    assert answer == str(list(refused))


def test_masked_operator() -> None:
    program = one_rule("SCMP_ACT_ERRNO", 18, SyscallArg(5, 0xF0, 0x50, "SCMP_CMP_MASKED_EQ"))
    answer, _ = child(
        lambda: [v for v in (0x50, 0x15F, 0x51, 0x40, 0xF0) if attempt("getppid", 0, 0, 0, 0, 0, v) == "EXDEV"], program
    )
    assert answer == str([0x50, 0x15F, 0x51])


def test_conditions_on_several_arguments_all_hold() -> None:
    program = one_rule("SCMP_ACT_ERRNO", 18, SyscallArg(0, 1), SyscallArg(1, 2))
    answer, _ = child(lambda: [attempt("getppid", *pair) for pair in ((1, 2), (1, 1), (2, 2))], program)
    assert answer == str(["EXDEV", "ok", "ok"])


def test_conditions_on_one_argument_are_alternatives() -> None:
    program = one_rule("SCMP_ACT_ERRNO", 18, SyscallArg(0, 1), SyscallArg(0, 2))
    answer, _ = child(lambda: [attempt("getppid", value) for value in (1, 2, 3)], program)
    assert answer == str(["EXDEV", "EXDEV", "ok"])


# --- attacks on the default profile, as root that holds everything the machine gave

CLONE_NEWUSER, CLONE_NEWNS, CLONE_NEWTIME, SIGCHLD = 0x10000000, 0x20000, 0x80, 17
AF_VSOCK, AF_ALG, AF_RDS = 40, 38, 21
DEFAULT_FILTER = seccomp.compile(default_profile(DEFAULT.bounding))
_PATH = ctypes.create_string_buffer(b"/nonexistent")
_ADDRESS = ctypes.addressof(_PATH)

# Without the filter each of these gets as far as another answer than the filter's: that is checked too.
ATTACKS: dict[str, tuple[str, tuple[int, ...], str]] = {
    "mount": ("mount", (0, _ADDRESS, _ADDRESS, 0, 0), "EPERM"),
    "umount": ("umount2", (_ADDRESS, 0), "EPERM"),
    "move_mount": ("move_mount", (2**32 - 1, 0, 2**32 - 1, 0, 0), "EPERM"),
    "open_tree": ("open_tree", (2**32 - 1, _ADDRESS, 0), "EPERM"),
    "fsopen": ("fsopen", (_ADDRESS, 0), "EPERM"),
    "pivot_root": ("pivot_root", (_ADDRESS, _ADDRESS), "EPERM"),
    "setns": ("setns", (2**32 - 1, 0), "EPERM"),
    "unshare user": ("unshare", (CLONE_NEWUSER | 1 << 63,), "EPERM"),
    "unshare time": ("unshare", (CLONE_NEWTIME | 1 << 63,), "EPERM"),
    "clone user": ("clone", (CLONE_NEWUSER | 0x200, 0, 0, 0, 0), "EPERM"),  # CLONE_FS with it: EINVAL otherwise
    "clone mount": ("clone", (CLONE_NEWNS | 0x200, 0, 0, 0, 0), "EPERM"),
    "clone3": ("clone3", (0, 0), "ENOSYS"),
    "keyctl": ("keyctl", (9999,), "EPERM"),
    "add_key": ("add_key", (0, 0, 0, 0, 0), "EPERM"),
    "request_key": ("request_key", (0, 0, 0, 0), "EPERM"),
    "bpf": ("bpf", (9999, 0, 0), "EPERM"),
    "perf_event_open": ("perf_event_open", (0, 0, 0, 0, 0), "EPERM"),
    "userfaultfd": ("userfaultfd", (2**31,), "EPERM"),
    "io_uring": ("io_uring_setup", (1, 0), "EPERM"),
    "open_by_handle_at": ("open_by_handle_at", (2**32 - 1, 0, 0), "EPERM"),
    "finit_module": ("finit_module", (2**32 - 1, 0, 0), "EPERM"),
    "swapon": ("swapon", (_ADDRESS, 0), "EPERM"),
    "syslog": ("syslog", (9999, 0, 0), "EPERM"),
    "settimeofday": ("settimeofday", (1, 0), "EPERM"),
    "kcmp": ("kcmp", (0, 0, 9999, 0, 0), "EPERM"),
    "pidfd_getfd": ("pidfd_getfd", (2**32 - 1, 0, 0), "EPERM"),
    "process_madvise": ("process_madvise", (2**32 - 1, 0, 0, 0, 0), "EPERM"),
    "quotactl": ("quotactl", (0, 0, 0, 0), "EPERM"),
    "fanotify_init": ("fanotify_init", (2**31, 0), "EPERM"),
    "vsock": ("socket", (AF_VSOCK, 1, 0), "EPERM"),
    "vsock, upper half set": ("socket", (1 << 32 | AF_VSOCK, 1, 0), "EPERM"),
    "alg": ("socket", (AF_ALG, 5, 0), "EPERM"),
    "rds": ("socket", (AF_RDS, 5, 0), "EPERM"),
    "audit": ("socket", (16, 3, 9), "EINVAL"),
    "no randomisation": ("personality", (0x40000,), "EPERM"),
    "readable is executable": ("personality", (0x400000,), "EPERM"),
    "typing into a terminal": ("ioctl", (2**32 - 1, 0x5412, _ADDRESS), "EPERM"),
    "typing, upper half set": ("ioctl", (2**32 - 1, 1 << 32 | 0x5412, _ADDRESS), "EPERM"),
    "pasting into a console": ("ioctl", (2**32 - 1, 0x541C, _ADDRESS), "EPERM"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_attack_is_stopped(attack: str) -> None:
    call, args, expected = ATTACKS[attack]
    without, _ = child(lambda: attempt(call, *args))
    assert without != expected, "would not show that it was the filter"
    assert child(lambda: attempt(call, *args), DEFAULT_FILTER) == (expected, 0)


def test_kexec_and_reboot() -> None:
    """Not tried without the filter."""
    bad_magic = (1, 2, 3, 0)
    assert child(lambda: attempt("kexec_load", 0, 2**40, 0, 0), DEFAULT_FILTER) == ("EPERM", 0)
    assert child(lambda: attempt("reboot", *bad_magic), DEFAULT_FILTER) == ("EPERM", 0)


def test_a_filter_cannot_be_taken_off() -> None:
    """Loading an allow-everything filter on top changes nothing, and an exec keeps the first."""

    def body() -> object:
        seccomp.load(b"\x06\0\0\0\0\0\xff\x7f")
        again = attempt("mount", 0, _ADDRESS, _ADDRESS, 0, 0)
        done = subprocess.run(["unshare", "-U", "true"], check=False, capture_output=True, text=True)
        return again, done.stderr.strip()

    text, _ = child(body, DEFAULT_FILTER)
    assert text == str(("EPERM", "unshare: unshare failed: Operation not permitted"))


def test_newer_calls_do_not_exist() -> None:
    """So that libc falls back; what is old and not listed is refused."""
    answer, _ = child(lambda: [attempt(number) for number in (500, 4000, 2**31 - 1)], DEFAULT_FILTER)
    assert answer == str(["ENOSYS"] * 3)


def test_own_errno_is_for_newer_calls_too() -> None:
    profile = default_profile(()).replace(default_errno_ret=18)
    assert child(lambda: attempt(500), seccomp.compile(profile)) == ("EXDEV", 0)


def test_a_short_list_does_not_make_old_calls_new() -> None:
    calls = "write exit_group close read rt_sigprocmask brk mmap munmap rt_sigaction futex wait4 getpid".split()
    program = seccomp.compile(Seccomp("SCMP_ACT_ERRNO", syscalls=(SyscallRule(tuple(calls), "SCMP_ACT_ALLOW"),)))
    answer, _ = child(lambda: (attempt("userfaultfd"), attempt("openat2"), attempt("io_uring_setup")), program)
    assert answer == str(("EPERM", "ENOSYS", "ENOSYS"))


# --- by the numbers of another architecture

# push rbx; mov eax, edi; mov ebx, esi; xchg edx, ecx; int 0x80; pop rbx; ret: f(number, first, second, third)
_INT80 = bytes.fromhex("53 89f8 89f3 87ca cd80 5b c3")
I386 = {"mount": 21, "socket": 359, "socketcall": 102, "unshare": 310, "keyctl": 288, "getpid": 20, "bpf": 357,
        "clone3": 435, "ioctl": 54, "personality": 136, "process_madvise": 440}  # fmt: skip


def compat(number: int, *args: int) -> int:
    """A call as a 32-bit program of x86 makes it: its result, or minus the error number."""
    code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    code.write(_INT80)
    function = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_int] * 4)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
    return int(function(number, *(*args, 0, 0, 0)[:3]))


def below_4g(data: bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    address: int = libc.mmap(0, 4096, 3, 0x20 | 0x2 | 0x40, -1, 0)  # ANONYMOUS | PRIVATE | 32BIT
    ctypes.memmove(address, data, len(data))
    return address


if INTEL:

    def test_32_bit_calls_are_made_here() -> None:
        """Else the next tests would show nothing."""
        assert child(lambda: compat(I386["getpid"]) == os.getpid()) == ("True", 0)
        assert child(lambda: compat(I386["getpid"]) == os.getpid(), DEFAULT_FILTER) == ("True", 0)

    @pytest.mark.parametrize(
        ("call", "args", "expected"),
        [
            ("mount", (0, 0, 0), -errno.EPERM),
            ("socket", (AF_VSOCK, 1, 0), -errno.EPERM),
            ("unshare", (CLONE_NEWUSER,), -errno.EPERM),
            ("keyctl", (9999,), -errno.EPERM),
            ("bpf", (9999,), -errno.EPERM),
            ("personality", (0x40000,), -errno.EPERM),
            ("ioctl", (-1, 0x5412, 0), -errno.EPERM),
            ("process_madvise", (-1,), -errno.EPERM),
            ("clone3", (0, 0), -errno.ENOSYS),
        ],
    )
    def test_attack_by_32_bit_numbers(call: str, args: tuple[int, ...], expected: int) -> None:
        assert child(lambda: compat(I386[call], *args), DEFAULT_FILTER) == (str(expected), 0)

    def test_newer_32_bit_calls_do_not_exist() -> None:
        assert child(lambda: compat(500), DEFAULT_FILTER) == (str(-errno.ENOSYS), 0)

    def test_socketcall_is_no_way_round() -> None:
        """Its arguments are in memory, where a filter cannot look: socketcall(SYS_SOCKET, {AF_VSOCK, ...})."""

        def body() -> object:
            return compat(I386["socketcall"], 1, below_4g(struct.pack("=III", AF_VSOCK, 1, 0)))

        assert child(body)[0] != str(-errno.EPERM)
        assert child(body, DEFAULT_FILTER) == (str(-errno.EPERM), 0)

    def test_socketcall_stays_where_it_is_named() -> None:
        profile = default_profile(())
        first = profile.syscalls[0]
        named = first.replace(names=(*first.names, "socketcall"))
        program = seccomp.compile(profile.replace(syscalls=(named, *profile.syscalls[1:])))

        def body() -> object:
            return compat(I386["socketcall"], 1, below_4g(struct.pack("=III", 1, 1, 0))) >= 0

        assert child(body, program) == ("True", 0)

    @pytest.mark.parametrize("call", ["getppid", "mount", "socket"])
    def test_x32_numbers_do_not_exist(call: str) -> None:
        number = CALLS[call] | 0x40000000
        assert child(lambda: attempt(number, AF_VSOCK, 1), DEFAULT_FILTER) == ("ENOSYS", 0)

    def test_x32_when_the_profile_names_it() -> None:
        """Then mount by its number is refused as a known call is, and a newer one is answered as such."""
        profile = default_profile(()).replace(
            architectures=("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"), default_errno_ret=None
        )
        x32 = 0x40000000
        answer, status = child(
            lambda: [attempt(x32 | number) for number in (CALLS["mount"], 4000)] + [attempt(4000), attempt("mount")],
            seccomp.compile(profile),
        )
        assert (answer, status) == (str(["EPERM", "ENOSYS", "ENOSYS", "EPERM"]), 0)

    def test_architecture_that_is_not_listed_kills() -> None:
        program = seccomp.compile(default_profile(()).replace(architectures=("SCMP_ARCH_X86_64",)))
        text, status = child(lambda: compat(I386["getpid"]), program)
        assert text == ""
        assert os.WTERMSIG(status) == 31


# --- what must go on working

_THREADS = """
import threading, multiprocessing, subprocess, tempfile, socket, asyncio, select, time, os, fcntl, ctypes, random
def work(): total.append(sum(range(1000)))
total = []
threads = [threading.Thread(target=work) for _ in range(8)]
[t.start() for t in threads]; [t.join() for t in threads]
assert len(total) == 8
with multiprocessing.get_context("fork").Pool(2) as pool: assert pool.map(abs, [-1, -2]) == [1, 2]
assert subprocess.run(["true"]).returncode == 0
with tempfile.TemporaryDirectory() as place:
    path = place + "/f"
    with open(path, "w") as file: file.write("x"); fcntl.flock(file, fcntl.LOCK_EX); os.fsync(file.fileno())
    os.chmod(path, 0o600); os.utime(path); os.rename(path, path + "2"); os.listdir(place)
    server = socket.socket(socket.AF_UNIX); server.bind(place + "/s"); server.listen()
server = socket.create_server(("127.0.0.1", 0)); client = socket.create_connection(server.getsockname())
async def main(): await asyncio.sleep(0.001); await (await asyncio.create_subprocess_exec("true")).wait()
asyncio.run(main())
os.getrandom(4); os.sched_getaffinity(0); os.memfd_create("x"); os.pidfd_open(os.getpid()); os.eventfd(0)
assert ctypes.CDLL(None).unshare(0x200) == 0
print("fine")
"""
_NUMPY = "import numpy; print(int((numpy.ones((300, 300)) @ numpy.ones((300, 300))).sum()))"
PROGRAMS = {
    "python": ([sys.executable, "-c", _THREADS], "fine\n"),
    "numpy": ([sys.executable, "-c", _NUMPY], "27000000\n"),
    "bash": (["bash", "-c", "trap 'echo end' EXIT; for i in 1 2 3; do echo $i; done | (sort -r)"], "3\n2\n1\nend\n"),
    "tar": (["sh", "-c", "cd /etc && tar -czf - passwd hostname | tar -tzf -"], "passwd\nhostname\n"),
    "apt-get": (["sh", "-c", "apt-get --version | head -c 4"], "apt "),
    "ps": (["sh", "-c", "ps -o comm= -p $$"], "sh\n"),
    "perl": (["perl", "-e", "print 6*7"], "42"),
    "find": (["sh", "-c", "find /etc/passwd -newermt 1990-01-01"], "/etc/passwd\n"),
    "env": (["sh", "-c", "nice -n 5 timeout 20 setsid env -i stdbuf -o0 id -u"], "0\n"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_ordinary_programs_work(name: str) -> None:
    command, expected = PROGRAMS[name]

    def body() -> object:
        capabilities.drop_bounding(DEFAULT.bounding)
        capabilities.set_sets(DEFAULT)
        seccomp.set_no_new_privs()
        seccomp.load(DEFAULT_FILTER)
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        return done.stdout + done.stderr

    assert child(body) == (expected, 0)


def test_namespaces_with_sys_admin() -> None:
    program = seccomp.compile(default_profile((*DEFAULT.bounding, "CAP_SYS_ADMIN")))

    def body() -> object:
        done = subprocess.run(["unshare", "-mUr", "id", "-u"], check=False, capture_output=True, text=True)
        return done.stdout + done.stderr

    assert child(body, program) == ("0\n", 0)
