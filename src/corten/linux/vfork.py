"""A child that runs in its parent's memory until it becomes a program, as vfork(2) has it.

Why: a copy of an interpreter costs a millisecond of page tables, and as much again in pages that parent and child write
to afterwards (docs/architecture.md, "What it costs"). A child that borrows the memory costs 40 us.

Rule 1: the parent stands still until the child has executed its program or ended. So it must have one thread only.
Rule 2: whatever the child changes in memory stays changed; what belongs to a process (descriptors, directory, user,
        signals, limits) is its own. So it must not leave its descriptors in objects that the parent goes on using.
Rule 3: the child's work is a function that returns, and never raises: all Python frames must be unwound when the parent
        wakes up. The exec itself is done by the few instructions that have called it. Where the child is killed before
        (by somebody with the right to: nothing of ours does), those instructions end the parent as well, with one line:
        an interpreter in the middle of somebody else's frames must not go on.
Sources: clone(2), vfork(2); Intel SDM volume 2; Arm ARM, A64 instructions.
"""

from __future__ import annotations

import ctypes
import os

from corten.linux import machine_code, process, syscalls
from corten.linux.clone import Clone, arguments

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # What the child does at last: execute (descriptor, arguments, environment), or end with a status.
    End = tuple[int, list[bytes], list[bytes]] | int

_CLONE_VM, _CLONE_VFORK = 0x100, 0x4000
_PROT_READ_EXEC, _MAP_PRIVATE = 0x1 | 0x4, 0x2

_LOST = b"corten: the set-up of a container was killed, and its launcher cannot go on after that\n"
"""Rule 3 was broken from outside."""

# clone3(arguments, size) is called with the parent's own stack: the child writes only below the frame of this function,
# where nothing of the parent is. In the child the third argument is called, and what it returns is the address of six
# words: the number and the arguments of its last system call. A word of the frame says whether it has returned.
_X86_64 = bytes.fromhex(
    "53"  # push rbx
    "6a00"  # push 0                         twice, for the stack is to be aligned
    "6a00"  # push 0
    "4889d3"  # mov rbx, rdx
    "b8b3010000"  # mov eax, 435             clone3
    "0f05"  # syscall
    "4885c0"  # test rax, rax
    "7532"  # jne parent
    "ffd3"  # call rbx
    "48c7042401000000"  # mov [rsp], 1
    "4889c3"  # mov rbx, rax
    "488b03"  # mov rax, [rbx]
    "488b7b08"  # mov rdi, [rbx+8]
    "488b7310"  # mov rsi, [rbx+16]
    "488b5318"  # mov rdx, [rbx+24]
    "4c8b5320"  # mov r10, [rbx+32]
    "4c8b4328"  # mov r8, [rbx+40]
    "0f05"  # syscall
    "bf7d000000"  # mov edi, 125
    "b8e7000000"  # mov eax, 231             exit_group
    "0f05"  # syscall
    "59"  # parent: pop rcx
    "5a"  # pop rdx
    "5b"  # pop rbx
    "4885c0"  # test rax, rax
    "7805"  # js done
    "4885c9"  # test rcx, rcx
    "7401"  # je lost
    "c3"  # done: ret
    "bf02000000"  # lost: mov edi, 2
    "488d3518000000"  # lea rsi, [rip+24]    the text
    f"ba{len(_LOST).to_bytes(4, 'little').hex()}"  # mov edx, its length
    "b801000000"  # mov eax, 1               write
    "0f05"  # syscall
    "bf7d000000"  # mov edi, 125
    "b8e7000000"  # mov eax, 231             exit_group
    "0f05"  # syscall
) + _LOST
_AARCH64 = b"".join(word.to_bytes(4, "little") for word in (
    0xA9BD7BFD,  # stp x29, x30, [sp, #-48]!
    0xF9000BF3,  # str x19, [sp, #16]
    0xF90013FF,  # str xzr, [sp, #32]
    0xAA0203F3,  # mov x19, x2
    0xD2803668,  # mov x8, #435    clone3
    0xD4000001,  # svc #0
    0xB50001E0,  # cbnz x0, parent
    0xD63F0260,  # blr x19
    0xD2800033,  # mov x19, #1
    0xF90013F3,  # str x19, [sp, #32]
    0xAA0003F3,  # mov x19, x0
    0xF9400268,  # ldr x8, [x19]
    0xF9400660,  # ldr x0, [x19, #8]
    0xF9400A61,  # ldr x1, [x19, #16]
    0xF9400E62,  # ldr x2, [x19, #24]
    0xF9401263,  # ldr x3, [x19, #32]
    0xF9401664,  # ldr x4, [x19, #40]
    0xD4000001,  # svc #0
    0xD2800FA0,  # mov x0, #125
    0xD2800BC8,  # mov x8, #94     exit_group
    0xD4000001,  # svc #0
    0xF94013E9,  # parent: ldr x9, [sp, #32]
    0xF9400BF3,  # ldr x19, [sp, #16]
    0xA8C37BFD,  # ldp x29, x30, [sp], #48
    0xB7F80040,  # tbnz x0, #63, done
    0xB4000049,  # cbz x9, lost
    0xD65F03C0,  # done: ret
    0xD2800040,  # lost: mov x0, #2
    0x100000E1,  # adr x1, +28     the text
    0xD2800002 | len(_LOST) << 5,  # mov x2, its length
    0xD2800808,  # mov x8, #64     write
    0xD4000001,  # svc #0
    0xD2800FA0,  # mov x0, #125
    0xD2800BC8,  # mov x8, #94     exit_group
    0xD4000001,  # svc #0
)) + _LOST  # fmt: skip

_Work = ctypes.PYFUNCTYPE(ctypes.c_void_p)
_function: list[Callable[[int, int, int | None], int]] = []


def _clone3() -> Callable[[int, int, int | None], int]:
    """The instructions above as a function, made when first needed."""
    if not _function:
        code = _X86_64 if syscalls.MACHINE == "x86_64" else _AARCH64
        fd = machine_code.sealed("corten:vfork", code)
        mmap = ctypes.PyDLL(None, use_errno=True).mmap
        mmap.restype = ctypes.c_void_p
        mmap.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long
        address = mmap(None, len(code), _PROT_READ_EXEC, _MAP_PRIVATE, fd, 0)
        os.close(fd)
        if address == ctypes.c_void_p(-1).value:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        # PYFUNCTYPE: neither call lets go of the interpreter's lock, which the child could never take again.
        _function.append(ctypes.PYFUNCTYPE(ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)(address))
    return _function[0]


def clone3(flags: int, cgroup_fd: int | None, work: Callable[[], End]) -> Clone:
    """As `clone.clone3`, but the child has this process's memory; it does the work, then what that says. `OSError`.

    Returns when the child has executed its program or ended. Without a program its exit status is what `work` returns.
    """
    end: list[object] = []  # kept until the parent goes on

    def child() -> int:
        return _last_call(work(), end)

    called = _Work(child)
    pidfd = ctypes.c_int(-1)
    args = arguments(flags | _CLONE_VM | _CLONE_VFORK, pidfd, cgroup_fd)
    pid = _clone3()(ctypes.addressof(args), ctypes.sizeof(args), ctypes.cast(called, ctypes.c_void_p).value)
    if pid < 0:
        raise OSError(-pid, os.strerror(-pid))
    return Clone(pid, pidfd.value)


def _last_call(what: End, kept: list[object]) -> int:
    """The address of the number and arguments of the system call that does it."""
    if isinstance(what, int):
        call = syscalls.words(syscalls.NUMBERS["exit_group"], what, 0, 0, 0, 0)
    else:
        fd, args, environment = what
        texts = ctypes.create_string_buffer(1), syscalls.strings(args), syscalls.strings(environment)
        places = [ctypes.addressof(text) for text in texts]
        call = syscalls.words(syscalls.NUMBERS["execveat"], fd, *places, process.AT_EMPTY_PATH)
        kept += [args, environment, texts]
    kept.append(call)
    return ctypes.addressof(call)
