"""Profiles made into filters, kept as files, and read from files. Nothing is loaded here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidInput, KernelError
from corten.linux import seccomp, seccomp_rules
from corten.linux.seccomp import Seccomp, SyscallArg, SyscallRule
from corten.linux.seccomp_profile import from_json
from corten.linux.syscalls import MACHINE
from corten.runtime.seccomp_default import cache_key, default_profile

SMALL = Seccomp("SCMP_ACT_ERRNO", syscalls=(SyscallRule(("read", "write", "exit_group"), "SCMP_ACT_ALLOW"),))
SOURCE = str(Path(seccomp.__file__).parents[2])


# --- compiling


def test_same_profile_same_bytes() -> None:
    profile = default_profile(())
    assert seccomp.compile(profile) == seccomp.compile(profile)
    assert len(seccomp.compile(profile)) % 8 == 0


def test_unknown_names_are_left_out() -> None:
    names = (*SMALL.syscalls[0].names, "no_such_call_ever")
    assert seccomp.compile(SMALL.replace(syscalls=(SMALL.syscalls[0].replace(names=names),))) == seccomp.compile(SMALL)


def test_a_rule_like_the_default_is_left_out() -> None:
    same = SyscallRule(("mount",), "SCMP_ACT_ERRNO", errno_ret=1)
    assert seccomp.compile(SMALL.replace(syscalls=(*SMALL.syscalls, same))) == seccomp.compile(SMALL)


def _arg(**changes: object) -> SyscallRule:
    return SyscallRule(("read",), "SCMP_ACT_ALLOW", args=(SyscallArg(0, 1).replace(**changes),))


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"default_action": "SCMP_ACT_ALOW"},
         "linux.seccomp.defaultAction: unknown action 'SCMP_ACT_ALOW'; did you mean SCMP_ACT_ALLOW?"),
        ({"default_action": "SCMP_ACT_ALLOW", "default_errno_ret": 1}, "defaultAction: SCMP_ACT_ALLOW takes no error"),
        ({"default_errno_ret": 4096}, "defaultAction: error number 4096 is outside 0 to 4095"),
        ({"architectures": ("SCMP_ARCH_X86", "x86-64")}, "linux.seccomp.architectures[1]: unknown architecture"),
        ({"syscalls": (SyscallRule(("read",), "ALLOW"),)}, "linux.seccomp.syscalls[0].action: unknown action 'ALLOW'"),
        ({"syscalls": (*SMALL.syscalls, SyscallRule((), "SCMP_ACT_ALLOW"))}, "linux.seccomp.syscalls[1].names: empty"),
        ({"syscalls": (_arg(op="SCMP_CMP_MASK_EQ"),)},
         "syscalls[0].args[0].op: unknown operator 'SCMP_CMP_MASK_EQ'; did you mean SCMP_CMP_MASKED_EQ?"),
        ({"syscalls": (_arg(index=6),)}, "syscalls[0].args[0].index: 6 is outside 0 to 5"),
        ({"syscalls": (_arg(value=2**64),)}, "syscalls[0].args[0].value: 18446744073709551616 is outside 0 to"),
        ({"syscalls": (_arg(value_two=-1),)}, "syscalls[0].args[0].valueTwo: -1 is outside 0 to"),
        ({"syscalls": (SyscallRule(("read",), "SCMP_ACT_ALLOW", errno_ret=5),)}, "SCMP_ACT_ALLOW takes no"),
        ({"syscalls": (_arg(), _arg().replace(action="SCMP_ACT_KILL"))},
         "linux.seccomp.syscalls[1]: read: libseccomp refuses the rule"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_named(change: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        seccomp.compile(SMALL.replace(**change))
    assert text in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("architecture", seccomp_rules.ARCHITECTURES)
def test_every_architecture_is_known(architecture: str) -> None:
    assert seccomp.compile(SMALL.replace(architectures=(architecture,)))


@given(
    st.lists(
        st.builds(
            SyscallRule,
            # Few, each once, and the same in every run: libseccomp 2.5.4 was seen to spin for minutes over rules whose
            # conditions overlap.
            st.lists(
                st.sampled_from(["read", "ioctl", "socket", "chown32", "nothing"]), min_size=1, max_size=3, unique=True
            ).map(tuple),
            st.sampled_from(sorted(seccomp_rules.ACTIONS)),
            args=st.lists(
                st.builds(
                    SyscallArg,
                    st.integers(0, 5),
                    st.integers(0, 2**64 - 1),
                    st.integers(0, 2**64 - 1),
                    st.sampled_from(sorted(seccomp_rules.OPERATORS)),
                ),
                max_size=1,
            ).map(tuple),
        ),
        max_size=3,
    ).map(tuple),
    st.sampled_from(sorted(seccomp_rules.ACTIONS)),
)
def test_any_profile_compiles_or_says_why(rules: tuple[SyscallRule, ...], default: str) -> None:
    try:
        program = seccomp.compile(Seccomp(default, syscalls=rules))
    except InvalidInput as error:
        assert str(error).startswith("linux.seccomp.syscalls[")
    else:
        assert program
        assert len(program) % 8 == 0


def test_without_libseccomp() -> None:
    """pyseccomp looks for the library by running programs; with none of them it finds nothing."""
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r})\n"
        "import ctypes.util; ctypes.util.find_library = lambda name: None if name == 'seccomp' else 'libc.so.6'\n"
        "from corten.linux import seccomp; from corten.errors import Unsupported\n"
        "try: seccomp.compile(seccomp.Seccomp('SCMP_ACT_ALLOW'))\n"
        "except Unsupported as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert "install the package libseccomp2" in done.stdout
    assert done.stdout.count("\n") == 1


# --- kept filters


def _kept(directory: Path) -> Path:
    (file,) = directory.iterdir()
    return file


def test_kept_and_found(tmp_path: Path) -> None:
    directory = tmp_path / "filters"
    made = seccomp.cached(SMALL, str(directory))
    assert made == seccomp.compile(SMALL)
    assert _kept(directory).stat().st_mode & 0o777 == 0o600
    when = _kept(directory).stat().st_mtime_ns
    assert seccomp.cached(SMALL, str(directory)) == made
    assert _kept(directory).stat().st_mtime_ns == when
    assert seccomp.cached(default_profile(()), str(directory)) != made
    assert len(list(directory.iterdir())) == 2


def test_found_by_key_without_the_profile(tmp_path: Path) -> None:
    made = seccomp.cached(lambda: SMALL, str(tmp_path), "a-key")

    def profile() -> Seccomp:
        raise AssertionError("made although it was kept")

    assert seccomp.cached(profile, str(tmp_path), "a-key") == made
    assert _kept(tmp_path).name == f"a-key.{MACHINE}.bpf"


def test_a_hit_imports_next_to_nothing(tmp_path: Path) -> None:
    key = cache_key(())
    made = seccomp.cached(lambda: default_profile(()), str(tmp_path), key)
    code = (
        f"import sys; sys.path.insert(0, {SOURCE!r})\n"
        "from corten.linux import seccomp; from corten.runtime import seccomp_default\n"
        "before = set(sys.modules)\n"
        f"found = seccomp.cached(lambda: 1/0, {str(tmp_path)!r}, seccomp_default.cache_key(()))\n"
        "print(len(found), *(set(sys.modules) - before))\n"
        "print(*{'pyseccomp', 'hashlib', 'typing', 're', 'json', 'subprocess', 'enum'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], check=True, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first.split() in ([str(len(made))], [str(len(made)), "binascii"])
    assert second == ""


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-8])


def _cut_front(file: Path) -> None:
    file.write_bytes(file.read_bytes()[8:])


def _empty(file: Path) -> None:
    file.write_bytes(b"")


def _flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[20] ^= 1
    file.write_bytes(data)


def _allow_all(file: Path) -> None:
    file.write_bytes(b"\x06\0\0\0\0\0\xff\x7f")


def _writable_by_all(file: Path) -> None:
    file.write_bytes(seccomp.pack(b"\x06\0\0\0\0\0\xff\x7f", seccomp.library_state(seccomp_rules.library_path())))
    file.chmod(0o666)


def _other_library(file: Path) -> None:
    state = seccomp.library_state(seccomp_rules.library_path())
    file.write_bytes(seccomp.pack(b"\x06\0\0\0\0\0\xff\x7f", state + "1"))


def _library_that_is_gone(file: Path) -> None:
    file.write_bytes(seccomp.pack(b"\x06\0\0\0\0\0\xff\x7f", "/no/such/libseccomp.so 1 2"))


def _link(file: Path) -> None:
    file.rename(file.parent.parent / "moved")
    file.symlink_to(file.parent.parent / "moved")


@pytest.mark.parametrize(
    "damage",
    [_truncate, _cut_front, _empty, _flip, _allow_all, _writable_by_all, _other_library, _library_that_is_gone, _link],
)
def test_what_cannot_be_trusted_is_made_again(damage: object, tmp_path: Path) -> None:
    directory = tmp_path / "filters"
    made = seccomp.cached(SMALL, str(directory), "key")
    damage(_kept(directory))  # type: ignore[operator]
    assert seccomp.cached(SMALL, str(directory), "key") == made
    file = _kept(directory)
    assert not file.is_symlink()
    assert file.stat().st_mode & 0o777 == 0o600
    assert seccomp.unpack(file.read_bytes()) == (made, seccomp.library_state(seccomp_rules.library_path()))


@given(st.binary(min_size=1).map(lambda data: data * 8), st.text())
def test_pack_and_unpack(program: bytes, library: str) -> None:
    library = library.encode("utf-8", "ignore").decode().strip() or "/lib"
    data = seccomp.pack(program, library)
    assert seccomp.unpack(data) == (program, library)
    assert len(data) % 8 == 0
    for end in {*range(0, len(data), 8), len(data) - 1}:
        assert seccomp.unpack(data[:end]) is None


@given(st.binary(max_size=200))
def test_junk_is_no_filter(data: bytes) -> None:
    assert seccomp.unpack(data) is None


def test_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(KernelError, match=r"keep the compiled system call filter .*Not a directory"):
        seccomp.cached(SMALL, str(tmp_path / "file" / "filters"))


def test_many_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(seccomp.cached(SMALL, str(tmp_path), "key"))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [seccomp.compile(SMALL)] * 8
    assert _kept(tmp_path).name.startswith("key.")


# --- loading, as far as it goes without


@pytest.mark.parametrize("program", [b"", b"1234567", bytes(8 * 4097)])
def test_no_filter_is_not_loaded(program: bytes) -> None:
    with pytest.raises(InvalidInput, match="system call filter of"):
        seccomp.load(program)


def test_unknown_flag() -> None:
    with pytest.raises(InvalidInput, match=r"linux.seccomp.flags: unknown flag 'TSYNC'; known: SECCOMP_FILTER_FLAG_"):
        seccomp.load(bytes(8), ("TSYNC",))
    with pytest.raises(InvalidInput, match="WAIT_KILLABLE_RECV has no meaning without SCMP_ACT_NOTIFY"):
        seccomp.load(bytes(8), ("SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",))


def test_who_needs_a_listener() -> None:
    assert not seccomp.needs_listener(seccomp.compile(SMALL))
    rule = SyscallRule(("mount",), "SCMP_ACT_NOTIFY")
    assert seccomp.needs_listener(seccomp.compile(SMALL.replace(syscalls=(*SMALL.syscalls, rule))))
    assert not seccomp.needs_listener(bytes(4) + seccomp._RETURN_NOTIFY + bytes(4))


# --- profiles in files

DOCKER = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 38,
    "archMap": [
        {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
        {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": None},
    ],
    "syscalls": [
        {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW", "args": None, "comment": "", "includes": {}},
        {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"], "arches": ["s390x"]},
         "args": [{"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["amd64", "x32"]}},
        {"name": "kexec_load", "action": "SCMP_ACT_ERRNO", "errnoRet": 1},
    ],
}  # fmt: skip


def _names(profile: Seccomp) -> str:
    return " ".join(name for rule in profile.syscalls for name in rule.names)


def test_dockers_format() -> None:
    profile = from_json(DOCKER, (), "x86_64", "6.1.0-18-amd64")
    assert profile.architectures == ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32")
    assert profile.default_errno_ret == 38
    assert _names(profile) == "read write ptrace clone arch_prctl kexec_load"
    assert profile.syscalls[2].args == (SyscallArg(0, 2114060288, 0, "SCMP_CMP_MASKED_EQ"),)
    assert profile.syscalls[-1].errno_ret == 1
    assert _names(from_json(DOCKER, ("CAP_SYS_ADMIN",), "aarch64", "4.7")) == "read write mount kexec_load"
    assert from_json(DOCKER, (), "aarch64").architectures == ("SCMP_ARCH_AARCH64",)


def test_the_specifications_format(tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(
        json.dumps(
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "architectures": ["SCMP_ARCH_X86_64"],
                "flags": ["SECCOMP_FILTER_FLAG_LOG"],
                "listenerPath": "/run/listener",
                "listenerMetadata": "opaque",
                "syscalls": [{"names": ["mount"], "action": "SCMP_ACT_NOTIFY"}],
            }
        )
    )
    assert seccomp.read_profile(str(file)) == Seccomp(
        "SCMP_ACT_ALLOW",
        None,
        ("SCMP_ARCH_X86_64",),
        ("SECCOMP_FILTER_FLAG_LOG",),
        "/run/listener",
        "opaque",
        (SyscallRule(("mount",), "SCMP_ACT_NOTIFY"),),
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("{", "not JSON"),
        ("[]", "the whole: expected an object"),
        ("{}", "defaultAction: missing"),
        ('{"defaultAction": 1}', "defaultAction: expected a string"),
        ('{"defaultAction": "x", "defaultErrnoRet": true}', "defaultErrnoRet: expected a whole number"),
        ('{"defaultAction": "x", "syscalls": [{"names": ["a"]}]}', "syscalls[0].action: missing"),
        ('{"defaultAction": "x", "syscalls": [{"action": "a"}]}', "syscalls[0].names: missing or empty"),
        ('{"defaultAction": "x", "syscalls": [{"action": "a", "names": [1]}]}', "syscalls[0].names: expected an"),
        ('{"defaultAction": "x", "syscalls": [{"action": "a", "names": ["a"], "args": [{}]}]}',
         "syscalls[0].args[0].index: missing"),
        ('{"defaultAction": "x", "syscalls": [{"action": "a", "names": ["a"], "includes": {"minKernel": "new"}}]}',
         "syscalls[0].includes.minKernel: 'new' is not a kernel version"),
    ],
)  # fmt: skip
def test_malformed_profile_names_file_and_field(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "profile.json"
    file.write_text(text)
    with pytest.raises(InvalidInput) as caught:
        seccomp.read_profile(str(file))
    assert str(caught.value).startswith(f"seccomp profile {file}: {said}")
    assert "\n" not in str(caught.value)


def test_absent_profile(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="No such file"):
        seccomp.read_profile(str(tmp_path / "none"))


def test_library_is_found() -> None:
    assert os.path.basename(seccomp_rules.library_path()).startswith("libseccomp")
