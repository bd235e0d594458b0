"""The default profile as data: what it gives for which capabilities, and the name of its kept filter."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.linux import seccomp_rules
from corten.linux.capabilities import ALL, DEFAULT
from corten.linux.seccomp import Seccomp, SyscallArg
from corten.runtime import seccomp_default
from corten.runtime.seccomp_default import cache_key, default_profile

capability_sets = st.sets(st.sampled_from(ALL)).map(tuple)


def _unconditional(profile: Seccomp) -> set[str]:
    return {
        name for rule in profile.syscalls if not rule.args and rule.action == "SCMP_ACT_ALLOW" for name in rule.names
    }


def _holds(arg: SyscallArg, value: int) -> bool:
    return {
        "SCMP_CMP_EQ": value == arg.value,
        "SCMP_CMP_NE": value != arg.value,
        "SCMP_CMP_MASKED_EQ": value & arg.value == arg.value_two,
    }[arg.op]


def _allowed(profile: Seccomp, name: str, *values: int) -> bool:
    rules = [rule for rule in profile.syscalls if name in rule.names and rule.action == "SCMP_ACT_ALLOW"]
    return any(all(_holds(arg, values[arg.index]) for arg in rule.args) for rule in rules)


def test_fingerprint_follows_the_lists() -> None:
    """A kept filter is found by the fingerprint: lists changed without it would leave old filters in use."""
    variants = [(), *((name,) for name in ALL), ALL]
    everything = repr([default_profile(held, machine) for held in variants for machine in ("x86_64", "aarch64")])
    assert hashlib.sha256(everything.encode()).hexdigest()[:12] == seccomp_default.FINGERPRINT


@given(capability_sets, capability_sets)
def test_same_key_same_profile(one: tuple[str, ...], other: tuple[str, ...]) -> None:
    both = (*one, *other)
    for held in (one, other):
        if cache_key(held) == cache_key(both):
            assert default_profile(held) == default_profile(both)


def test_key_has_only_what_matters() -> None:
    assert cache_key(DEFAULT.bounding) == cache_key(("CAP_SYS_CHROOT", "CAP_CHOWN", "CAP_KILL"))
    assert cache_key(DEFAULT.bounding) != cache_key((*DEFAULT.bounding, "CAP_SYS_ADMIN"))
    assert set(cache_key(ALL)) <= set("default-0123456789abcdef")


@given(capability_sets)
def test_more_capabilities_never_take_calls_away(held: tuple[str, ...]) -> None:
    assert _unconditional(default_profile(held)) >= _unconditional(default_profile(()))


@pytest.mark.parametrize(
    "call",
    "mount umount2 pivot_root setns bpf perf_event_open keyctl add_key request_key userfaultfd kexec_load "
    "kexec_file_load open_by_handle_at io_uring_setup io_uring_enter io_uring_register init_module finit_module "
    "delete_module reboot swapon swapoff acct settimeofday clock_settime iopl ioperm syslog kcmp pidfd_getfd "
    "process_madvise vhangup quotactl fanotify_init move_mount open_tree fsopen socketcall clone3 modify_ldt".split(),
)
def test_not_allowed_by_default(call: str) -> None:
    assert not _allowed(default_profile(DEFAULT.bounding), call, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    "call",
    "keyctl add_key request_key userfaultfd kexec_load kexec_file_load io_uring_setup swapon socketcall".split(),
)
def test_never_allowed(call: str) -> None:
    assert not _allowed(default_profile(ALL), call, 0, 0, 0, 0, 0, 0)


@pytest.mark.parametrize(
    ("capability", "call"),
    [
        ("CAP_SYS_ADMIN", "mount"),
        ("CAP_SYS_ADMIN", "unshare"),
        ("CAP_SYS_ADMIN", "setns"),
        ("CAP_BPF", "bpf"),
        ("CAP_PERFMON", "perf_event_open"),
        ("CAP_SYS_PTRACE", "kcmp"),
        ("CAP_SYS_MODULE", "finit_module"),
        ("CAP_SYS_TIME", "clock_settime"),
        ("CAP_SYS_CHROOT", "chroot"),
        ("CAP_DAC_READ_SEARCH", "open_by_handle_at"),
        ("CAP_SYS_BOOT", "reboot"),
    ],
)
def test_given_with_its_capability_only(capability: str, call: str) -> None:
    assert call in _unconditional(default_profile((capability,)))
    assert call not in _unconditional(default_profile(()))


@given(st.integers(0, 2**64 - 1) | st.integers(0, 2**32 - 1).map(lambda high: high << 32 | 0x5412))
def test_ioctl_is_refused_by_its_low_half(request_: int) -> None:
    expected = request_ & 0xFFFFFFFF not in (0x5412, 0x541C)
    assert _allowed(default_profile(()), "ioctl", 0, request_) == expected


def test_ioctl_near_the_refused_ones() -> None:
    profile = default_profile(())
    refused = [value for value in range(0x5000, 0x6000) if not _allowed(profile, "ioctl", 0, value)]
    assert refused == [0x5412, 0x541C]


@given(st.integers(0, 2**64 - 1))
def test_socket_families(family: int) -> None:
    assert _allowed(default_profile(()), "socket", family, 1, 0) == (family in (1, 2, 10, 16, 17))
    everything = _allowed(default_profile(ALL), "socket", family, 1, 0)
    assert everything == (0 < family < 47 and family not in (38, 40))


@given(st.integers(0, 2**32 - 1))
def test_clone_and_unshare_without_namespaces(flags: int) -> None:
    profile = default_profile(())
    assert _allowed(profile, "clone", flags) == (not flags & 0x7E020000)
    assert _allowed(profile, "unshare", flags) == (not flags & 0x7E020080)


def test_each_name_once_and_known() -> None:
    """A misspelt name would be left out without a word."""
    words = " ".join(seccomp_default._ALWAYS).split()
    assert len(words) == len(set(words))
    library = seccomp_rules._library()
    newer = set("getxattrat listmount listxattrat mseal removexattrat setxattrat statmount uprobe uretprobe".split())
    newer |= set("cachestat fchmodat2 futex_requeue futex_wait futex_wake map_shadow_stack quotactl_fd".split())
    newer |= {f"lsm_{name}" for name in ("get_self_attr", "list_modules", "set_self_attr")}
    unknown = {name for name in _unconditional(default_profile(ALL)) if library.resolve_syscall(0, name) == -1}
    assert unknown <= newer
