"""The system calls that a container may make when nothing else is asked: an allow-list, by what it holds.

Rule 1: what is not listed is refused: EPERM, or ENOSYS for a call newer than the list, so that libc falls back.
Rule 2: a group is given with the capability that the kernel asks for it anyway: without that it would be attack
        surface for nothing. What lets a program make a user namespace is given with CAP_SYS_ADMIN only, since in one
        a program holds every capability again.
Rule 3: never given, whatever is held: kexec, swap, keyrings (not namespaced), userfaultfd and io_uring (the way of
        many kernel exploits), the oldest calls. Who needs one brings a profile or `seccomp=unconfined`.
Compared with moby's default.json and containers-common's seccomp.json of 2025. Stricter than both: no x32, no
socketcall(2) (its arguments are out of a filter's sight), no modify_ldt, few socket families, no TIOCSTI. Looser than
moby: memory policy (numactl; as podman) and unshare(2) of what is no namespace.
"""

from __future__ import annotations

from corten.linux.capabilities import mask, names
from corten.linux.seccomp import Seccomp, SyscallArg, SyscallRule
from corten.linux.syscalls import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_ALLOW, _ERRNO = "SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO"
_EINVAL, _ENOSYS = 22, 38

# What every program may call. A name without a call on this machine (`chown32` is of 32 bits) is passed over.
_ALWAYS = (
    # open, read, write, and what follows from having a file open
    "close close_range copy_file_range creat dup dup2 dup3 fadvise64 fadvise64_64 arm_fadvise64_64 fallocate fcntl "
    "fcntl64 fdatasync flock fsync ftruncate ftruncate64 lseek _llseek open openat openat2 pipe pipe2 pread64 preadv "
    "preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range "
    "sync_file_range2 arm_sync_file_range syncfs tee truncate truncate64 vmsplice write writev cachestat",
    # directories, names, attributes; the kernel checks permissions
    "access chdir chmod chown chown32 faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat "
    "fgetxattr flistxattr fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd getdents "
    "getdents64 getxattr getxattrat lchown lchown32 lgetxattr link linkat listxattr listxattrat llistxattr "
    "lremovexattr lsetxattr lstat lstat64 mkdir mkdirat mknod mknodat name_to_handle_at newfstatat readdir readlink "
    "readlinkat removexattr removexattrat rename renameat renameat2 rmdir setxattr setxattrat stat stat64 statfs "
    "statfs64 statx symlink symlinkat umask unlink unlinkat utime utimensat utimensat_time64 utimes statmount "
    "listmount",
    # waiting for files and events
    "epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd "
    "eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 inotify_rm_watch poll ppoll ppoll_time64 "
    "pselect6 pselect6_time64 select _newselect signalfd signalfd4",
    # asynchronous reading and writing, the older kind (databases)
    "io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit",
    # memory, its placing on NUMA nodes of the cpuset, protection keys, secret and sealed memory
    "brk get_mempolicy madvise map_shadow_stack mbind membarrier memfd_create memfd_secret mincore mlock mlock2 "
    "mlockall mmap mmap2 mprotect mremap mseal msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect "
    "remap_file_pages set_mempolicy set_mempolicy_home_node",
    # processes and threads; clone, clone3 and unshare have rules of their own below
    "execve execveat exit exit_group fork futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake "
    "get_robust_list get_thread_area getcpu getpgid getpgrp getpid getppid getpriority getrlimit getrusage getsid "
    "gettid kill pidfd_open pidfd_send_signal prctl prlimit64 process_mrelease restart_syscall rseq set_robust_list "
    "set_thread_area set_tid_address set_tls setpgid setpriority setrlimit setsid sysinfo tgkill times tkill "
    "ugetrlimit uname vfork wait4 waitid waitpid arch_prctl breakpoint cacheflush uretprobe uprobe",
    # scheduling, within the limits of the control group
    "ioprio_get ioprio_set sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getattr "
    "sched_getparam sched_getscheduler sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity "
    "sched_setattr sched_setparam sched_setscheduler sched_yield",
    # signals
    "alarm pause rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend "
    "rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaction sigaltstack signal sigpending sigprocmask "
    "sigreturn sigsuspend",
    # clocks and timers; reading only: setting asks for CAP_SYS_TIME, also in adjtimex
    "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64 "
    "clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time timer_create timer_delete "
    "timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd timerfd_create "
    "timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64",
    # who it is; the kernel checks capabilities
    "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 getresgid getresgid32 "
    "getresuid getresuid32 getuid getuid32 setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups "
    "setgroups32 setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32",
    # sockets; socket itself has rules of its own below
    "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg recvmmsg_time64 "
    "recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair",
    # messages, semaphores and shared memory, in the container's own IPC namespace
    "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64 "
    "mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat shmctl shmdt shmget",
    # shutting oneself in further; random numbers
    "getrandom landlock_add_rule landlock_create_ruleset landlock_restrict_self seccomp",
    # debuggers, within the container; since Linux 4.8 a tracer cannot bypass the filter of what it traces
    "process_vm_readv process_vm_writev ptrace",
)

# What the kernel asks a capability for. The list of a capability is given whole with it.
_WITH = {
    "CAP_SYS_ADMIN": (
        # namespaces and mounts, so also containers inside
        "clone clone3 fsconfig fsmount fsopen fspick mount mount_setattr move_mount open_tree pivot_root setns umount "
        "umount2 unshare setdomainname sethostname "
        # watching, measuring and steering the machine
        "bpf fanotify_init lsm_get_self_attr lsm_list_modules lsm_set_self_attr perf_event_open quotactl quotactl_fd "
        "syslog"
    ),
    "CAP_BPF": "bpf",
    "CAP_CHECKPOINT_RESTORE": "kcmp",
    "CAP_DAC_READ_SEARCH": "open_by_handle_at",  # opens any file of a mount by number, past every directory
    "CAP_PERFMON": "perf_event_open",
    "CAP_SYSLOG": "syslog",
    "CAP_SYS_BOOT": "reboot",
    "CAP_SYS_CHROOT": "chroot",
    "CAP_SYS_MODULE": "delete_module finit_module init_module",
    "CAP_SYS_NICE": "migrate_pages move_pages",
    "CAP_SYS_PACCT": "acct",
    "CAP_SYS_PTRACE": "kcmp pidfd_getfd process_madvise",  # into other processes
    "CAP_SYS_RAWIO": "ioperm iopl",
    "CAP_SYS_TIME": "clock_settime clock_settime64 settimeofday stime",
    "CAP_SYS_TTY_CONFIG": "vhangup",
    "CAP_NET_ADMIN": "",  # more socket families
}

# CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET; NEWTIME is a bit that clone reads as a signal.
_NAMESPACES, _NEWTIME = 0x7E020000, 0x80
# UNIX, INET, INET6, NETLINK, PACKET (which asks for CAP_NET_RAW). Others load kernel modules that few have audited.
_FAMILIES = (1, 2, 10, 17)
_NETLINK, _NETLINK_AUDIT = 16, 9
# With CAP_NET_ADMIN all but VSOCK (40: reaches the host past every network namespace) and ALG (38: crypto drivers).
_MORE_FAMILIES = tuple(family for family in range(3, 47) if family not in (*_FAMILIES, _NETLINK, 38, 40))
# PER_LINUX and PER_LINUX32, with and without UNAME26, and the question. Not: ADDR_NO_RANDOMIZE, READ_IMPLIES_EXEC.
_PERSONALITIES = (0, 8, 0x20000, 0x20008, 0xFFFFFFFF)
# TIOCSTI puts words into a terminal as if typed; TIOCLINUX pastes in a console (CVE-2017-5226, CVE-2023-1523).
_TERMINAL_INPUT = (0x5412, 0x541C)

_ARCHITECTURES = {
    "x86_64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "aarch64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}

# The beginning of the digest of all this, as tests/unit/test_seccomp_default.py computes it: kept filters are found by
# it. A change of the lists changes it, and the test says what to write here.
FINGERPRINT = "c311389d58e9"


def cache_key(capabilities: Iterable[str]) -> str:
    """The name of the profile for these capabilities among kept filters: only those that matter to it are in it."""
    return f"default-{FINGERPRINT}-{mask(capabilities) & _relevant():x}"


def _relevant() -> int:
    return mask((*_WITH, "CAP_AUDIT_WRITE"))


def default_profile(capabilities: Iterable[str], machine: str = MACHINE) -> Seccomp:
    """The profile for a container with this bounding set. Pure."""
    held = frozenset(names(mask(capabilities)))
    allowed = set(" ".join(_ALWAYS).split())
    for name, calls in _WITH.items():
        if name in held:
            allowed.update(calls.split())
    rules = [SyscallRule(tuple(sorted(allowed)), _ALLOW)]
    if "CAP_SYS_ADMIN" not in held:
        rules += [
            _when("clone", SyscallArg(0, _NAMESPACES, 0, "SCMP_CMP_MASKED_EQ")),
            _when("unshare", SyscallArg(0, _NAMESPACES | _NEWTIME, 0, "SCMP_CMP_MASKED_EQ")),
            # Its flags are in memory, out of a filter's sight; glibc then uses clone.
            SyscallRule(("clone3",), _ERRNO, _ENOSYS),
        ]
    rules += [_when("personality", SyscallArg(0, value)) for value in _PERSONALITIES]
    rules += _sockets(held)
    rules += [_when("ioctl", condition) for condition in _any_but(_TERMINAL_INPUT)]
    return Seccomp(default_action=_ERRNO, architectures=_ARCHITECTURES[machine], syscalls=tuple(rules))


def _when(name: str, *args: SyscallArg) -> SyscallRule:
    return SyscallRule((name,), _ALLOW, args=args)


def _sockets(held: frozenset[str]) -> list[SyscallRule]:
    families = (*_FAMILIES, *_MORE_FAMILIES) if "CAP_NET_ADMIN" in held else _FAMILIES
    rules = [_when("socket", SyscallArg(0, family)) for family in families]
    netlink = SyscallArg(0, _NETLINK)
    if "CAP_AUDIT_WRITE" in held:
        return [*rules, _when("socket", netlink)]
    # EINVAL tells sudo and login that the kernel has no audit; EPERM would make them refuse to work (as podman does).
    audit = SyscallRule(("socket",), _ERRNO, _EINVAL, (netlink, SyscallArg(2, _NETLINK_AUDIT)))
    return [*rules, _when("socket", netlink, SyscallArg(2, _NETLINK_AUDIT, 0, "SCMP_CMP_NE")), audit]


def _any_but(values: tuple[int, int]) -> list[SyscallArg]:
    """Conditions of which one holds for a second argument unless its low 32 bits are one of two values.

    The kernel drops the upper half of the argument, so a comparison of all 64 bits could be evaded (CVE-2019-7303), and
    libseccomp has no "masked and not equal". So: some bit in which the two agree is another, or the bits in which
    they differ are neither those of the one nor those of the other.
    """
    one, other = values
    differ = one ^ other
    bits = [1 << position for position in range(32)]
    agreeing = [SyscallArg(1, bit, ~one & bit, "SCMP_CMP_MASKED_EQ") for bit in bits if not bit & differ]
    subset, mixed = differ, []
    while True:
        if subset not in (one & differ, other & differ):
            mixed.append(SyscallArg(1, differ, subset, "SCMP_CMP_MASKED_EQ"))
        if not subset:
            return [*agreeing, *mixed]
        subset = (subset - 1) & differ
