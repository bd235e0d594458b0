"""The last step into an untrusted program: an exec that the container cannot turn against the host's interpreter.

The attack (CVE-2019-5736): the container makes its program `/proc/self/exe`, a link or a `#!` line to that, or swaps it
for one while it is being executed. The kernel then executes what executes: us, the host's python, as a process of the
container, whose root may write to /proc/PID/exe once it has ended.
The answer: between us and the program a sealed file in memory is executed, of some 300 bytes, that does nothing but the
exec. `/proc/self/exe` is then that file, which nobody can write and which is gone with its last user.

This is machine code, made here as data: no compiler, no file. It is called as: its own name, the path of the program,
the program's arguments. If the exec fails it says so on stderr and ends with 127 (no such file) or 126.
Sources: elf(5), execve(2), execveat(2), memfd_create(2); Intel SDM volume 2; Arm ARM, A64 instructions.
"""

from __future__ import annotations

import fcntl
import os

from corten.linux.syscalls import MACHINE

_COMPLAINT = b"corten: the program cannot be executed: its loader is missing, or it is for another machine\n"
_BASE, _HEADERS = 0x400000, 64 + 56
_MFD_EXEC = 0x10  # since Linux 6.3, where vm.memfd_noexec may ask for it
_F_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8  # of themselves, of shrinking, growing, writing


def _x86_64() -> bytes:
    head = bytes.fromhex(
        "488b0c24"  # mov rcx, [rsp]           argc
        "488d54cc10"  # lea rdx, [rsp+rcx*8+16]  envp
        "488b7c2410"  # mov rdi, [rsp+16]        argv[1]: the path
        "488d742418"  # lea rsi, [rsp+24]        argv + 2
        "b83b000000"  # mov eax, 59              execve
        "0f05"  # syscall
        "bb7e000000"  # mov ebx, 126
        "83f8fe"  # cmp eax, -ENOENT
        "7505"  # jne over the next
        "bb7f000000"  # mov ebx, 127
        "b801000000"  # mov eax, 1               write
        "bf02000000"  # mov edi, 2
    )
    tail = bytes.fromhex(
        "0f05"  # syscall
        "89df"  # mov edi, ebx
        "b8e7000000"  # mov eax, 231             exit_group
        "0f05"  # syscall
    )
    length = b"\xba" + len(_COMPLAINT).to_bytes(4, "little")  # mov edx, length
    distance = len(length) + len(tail)  # from the end of the lea to the text behind the code
    return head + bytes.fromhex("488d35") + distance.to_bytes(4, "little") + length + tail + _COMPLAINT


def _aarch64() -> bytes:
    words = [
        0xF94003E9,  # ldr x9, [sp]
        0x8B296FE2,  # add x2, sp, x9, lsl #3
        0x91004042,  # add x2, x2, #16
        0xF9400BE0,  # ldr x0, [sp, #16]
        0x910063E1,  # add x1, sp, #24
        0xD2801BA8,  # mov x8, #221   execve
        0xD4000001,  # svc #0
        0x52800FD3,  # mov w19, #126
        0x3100081F,  # cmn w0, #2
        0x54000041,  # b.ne over the next
        0x52800FF3,  # mov w19, #127
        0xD2800040,  # mov x0, #2
        0x10000001 | 7 << 5,  # adr x1, the text, seven words on
        0xD2800002 | len(_COMPLAINT) << 5,  # mov x2, length
        0xD2800808,  # mov x8, #64    write
        0xD4000001,  # svc #0
        0x2A1303E0,  # mov w0, w19
        0xD2800BC8,  # mov x8, #94    exit_group
        0xD4000001,  # svc #0
    ]
    return b"".join(word.to_bytes(4, "little") for word in words) + _COMPLAINT


def program() -> bytes:
    """The whole ELF file: two headers and the code, loaded as one read-only piece."""
    code = _x86_64() if MACHINE == "x86_64" else _aarch64()
    size, machine = _HEADERS + len(code), 62 if MACHINE == "x86_64" else 183

    def numbers(width: int, *values: int) -> bytes:
        return b"".join(value.to_bytes(width, "little") for value in values)

    return b"".join((
        b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
        numbers(2, 2, machine), numbers(4, 1), numbers(8, _BASE + _HEADERS, 64, 0),
        numbers(4, 0), numbers(2, 64, 56, 1, 0, 0, 0),
        numbers(4, 1, 5), numbers(8, 0, _BASE, _BASE, size, size, 0x1000),  # PT_LOAD, readable and executable
        code,
    ))  # fmt: skip


def prepare() -> int:
    """The sealed file; its close-on-exec descriptor. To be called before a filter is loaded."""
    try:
        fd = os.memfd_create("corten:exec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | _MFD_EXEC)
    except OSError as error:
        if error.errno != 22:  # EINVAL: a kernel that does not know the flag executes without it
            raise
        fd = os.memfd_create("corten:exec", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.write(fd, program())
    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)
    return fd


def execute(fd: int, path: str, args: tuple[str, ...], environment: dict[str, str]) -> None:
    """Become the program, by way of the sealed file. `OSError` if that cannot be executed; needs execveat(2)."""
    os.execve(fd, ("corten", path, *args), environment)
