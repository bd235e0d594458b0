"""Programs of some hundred bytes, made as data: for what must be a program of its own and may not be an interpreter.

No compiler, no file: a program is a list of system calls and jumps, written once for both machines. It has one
register, the result of the last call, and a frame of words on its stack.
Sources: elf(5), syscall(2); Intel SDM volume 2; Arm ARM, A64 instructions.
"""

from __future__ import annotations

import os

from corten.linux.syscalls import MACHINE, numbers
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_BASE, _HEADERS = 0x400000, 64 + 56
_MFD_EXEC = 0x10  # since Linux 6.3, where vm.memfd_noexec may ask for it
_F_ADD_SEALS, _SEALS = 1033, 0x1 | 0x2 | 0x4 | 0x8  # of themselves, of shrinking, growing, writing
_SP = 31  # of aarch64

_FRAME = 512
"""Bytes of the frame. Right above it lies what every program finds on its stack: argc, argv, environment."""
ENVIRONMENT = _FRAME + 8 * 3
"""Where in the frame the pointers to the environment begin, in a program that is called by its name alone."""


def words_to_execute(path: str, args: Sequence[str], variables: Iterable[str]) -> list[bytes]:
    """What a program is given as its environment that is to execute another one (`Program.execute`)."""
    return [os.fsencode(word) for word in (path, *args, "", *variables)]


class Word(Record):
    """An argument: the word at an offset in the frame."""

    at: int


class Address(Record):
    """An argument: the address of an offset in the frame."""

    at: int


class Text(Record):
    """An argument: the address of some constant bytes."""

    content: bytes


Operand = int | Word | Address | Text


class Program:
    """A program that is being written, one instruction after the other."""

    def __init__(self, machine: str = MACHINE) -> None:
        self._code: _X86 | _Arm = _X86() if machine == "x86_64" else _Arm()
        self._machine, self._calls = machine, numbers(machine)
        self._texts: dict[bytes, str] = {}
        self._code.enter()

    def call(self, name: str, *arguments: Operand) -> None:
        """A system call; its result becomes the result."""
        for register, argument in enumerate(arguments):
            if isinstance(argument, int):
                self._code.number(register, argument)
            elif isinstance(argument, Word):
                self._code.word(register, argument.at)
            elif isinstance(argument, Address):
                self._code.address(register, argument.at)
            else:
                label = self._texts.setdefault(argument.content, f"text {len(self._texts)}")
                self._code.text(register, label)
        self._code.system_call(self._calls[name])

    def label(self, name: str) -> None:
        """A place to jump to."""
        self._code.labels[name] = len(self._code.out)

    def jump(self, label: str) -> None:
        """Go on there."""
        self._code.jump(label)

    def jump_if(self, how: str, number: int, label: str) -> None:
        """Go on there if the result compares so (`==`, `!=`, `<`, `<=`) with a number from 0 to 4095."""
        self._code.compare(number)
        self._code.jump(label, how)

    def set(self, number: int) -> None:
        """Make a number the result."""
        self._code.number(self._code.RESULT, number)

    def add(self, number: int) -> None:
        """Add a number from 0 to 4095 to the result."""
        self._code.add(number)

    def load(self, at: int) -> None:
        """Make the 32 bits at an offset in the frame, with their sign, the result."""
        self._code.load(at)

    def store(self, at: int) -> None:
        """Put the result into the frame, as 64 bits."""
        self._code.store(at)

    def end_arguments(self, count: int) -> None:
        """Put an end behind the arguments in `words_to_execute`, where the empty word is; the result is then 0.

        count: of the arguments, with the name.
        """
        self.set(0)
        self.store(ENVIRONMENT + 8 * (count + 1))

    def execute(self, count: int) -> None:
        """Execute what the environment says, after `end_arguments`; the result is that of a failure."""
        arguments = ENVIRONMENT + 8
        self.call("execve", Word(ENVIRONMENT), Address(arguments), Address(arguments + 8 * (count + 1)))

    def executable(self) -> bytes:
        """The whole ELF file: two headers and the code, loaded as one read-only piece."""
        code = self._code
        for content, label in self._texts.items():
            code.labels[label] = len(code.out)
            code.out += content.ljust(-(-len(content) // 8) * 8, b"\0")
        for fix in code.fixes:
            fix()
        size, machine = _HEADERS + len(code.out), 62 if self._machine == "x86_64" else 183

        def fields(width: int, *values: int) -> bytes:
            return b"".join(value.to_bytes(width, "little") for value in values)

        return b"".join((
            b"\x7fELF\x02\x01\x01".ljust(16, b"\0"),
            fields(2, 2, machine), fields(4, 1), fields(8, _BASE + _HEADERS, 64, 0),
            fields(4, 0), fields(2, 64, 56, 1, 0, 0, 0),
            fields(4, 1, 5), fields(8, 0, _BASE, _BASE, size, size, 0x1000),  # PT_LOAD, readable and executable
            bytes(code.out),
        ))  # fmt: skip


def sealed(name: str, content: bytes) -> int:
    """A file in memory that can be executed and that nobody can write to; its close-on-exec descriptor."""
    fd = executable_file(name)
    os.write(fd, content)
    seal(fd)
    return fd


def executable_file(name: str) -> int:
    """An empty file in memory that can be executed, to be filled and sealed; its close-on-exec descriptor."""
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    try:
        return os.memfd_create(name, flags | _MFD_EXEC)
    except OSError as error:
        if error.errno != 22:  # EINVAL: a kernel that does not know the flag executes without it
            raise
        return os.memfd_create(name, flags)


def seal(fd: int) -> None:
    """From now on nobody can write to the file, whatever descriptor they have."""
    import fcntl

    fcntl.fcntl(fd, _F_ADD_SEALS, _SEALS)


class _Instructions:
    """What has been written, and what waits for a label's place."""

    def __init__(self) -> None:
        self.out = bytearray()
        self.labels: dict[str, int] = {}
        self.fixes: list[Callable[[], None]] = []


class _X86(_Instructions):
    """x86_64. Arguments: rdi rsi rdx r10 r8 r9; the result: rax."""

    RESULT = 6
    _REGISTERS = (7, 6, 2, 10, 8, 9, 0)
    _JUMPS = {"==": 0x84, "!=": 0x85, "<": 0x8C, "<=": 0x8E}

    def _memory(self, operation: int, register: int, at: int) -> None:
        """An instruction between a register and [rsp+at]."""
        self.out += bytes((0x48 | register >> 3 << 2, operation, 0x84 | (register & 7) << 3, 0x24))
        self.out += at.to_bytes(4, "little")

    def _place(self, label: str) -> None:
        """Four bytes for the distance from behind them to a label."""
        at = len(self.out)
        self.out += bytes(4)

        def fix() -> None:
            self.out[at : at + 4] = (self.labels[label] - at - 4).to_bytes(4, "little", signed=True)

        self.fixes.append(fix)

    def enter(self) -> None:
        self.out += b"\x48\x81\xec" + _FRAME.to_bytes(4, "little")  # sub rsp, FRAME

    def number(self, register: int, value: int) -> None:
        number = self._REGISTERS[register]
        # mov register, sign-extended value
        self.out += bytes((0x48 | number >> 3, 0xC7, 0xC0 | number & 7)) + value.to_bytes(4, "little", signed=True)

    def word(self, register: int, at: int) -> None:
        self._memory(0x8B, self._REGISTERS[register], at)  # mov

    def address(self, register: int, at: int) -> None:
        self._memory(0x8D, self._REGISTERS[register], at)  # lea

    def text(self, register: int, label: str) -> None:
        number = self._REGISTERS[register]
        self.out += bytes((0x48 | number >> 3 << 2, 0x8D, 0x05 | (number & 7) << 3))  # lea register, [rip+distance]
        self._place(label)

    def system_call(self, number: int) -> None:
        self.out += b"\xb8" + number.to_bytes(4, "little") + b"\x0f\x05"  # mov eax, number; syscall

    def jump(self, label: str, how: str = "") -> None:
        self.out += bytes((0x0F, self._JUMPS[how])) if how else b"\xe9"
        self._place(label)

    def compare(self, number: int) -> None:
        self.out += b"\x48\x3d" + number.to_bytes(4, "little")  # cmp rax, number

    def add(self, number: int) -> None:
        self.out += b"\x48\x05" + number.to_bytes(4, "little")  # add rax, number

    def load(self, at: int) -> None:
        self._memory(0x63, 0, at)  # movsxd rax, dword [rsp+at]

    def store(self, at: int) -> None:
        self._memory(0x89, 0, at)  # mov [rsp+at], rax


class _Arm(_Instructions):
    """aarch64. Arguments: x0 to x5; the result: x0; the number of a call: x8."""

    RESULT = 0
    _JUMPS = {"==": 0, "!=": 1, "<": 11, "<=": 13}

    def _put(self, word: int) -> None:
        self.out += word.to_bytes(4, "little")

    def _place(self, word: int, label: str, bits: Callable[[int], int]) -> None:
        """An instruction with the distance from it to a label."""
        at = len(self.out)
        self._put(word)

        def fix() -> None:
            self.out[at : at + 4] = (word | bits(self.labels[label] - at)).to_bytes(4, "little")

        self.fixes.append(fix)

    def enter(self) -> None:
        self._put(0xD10003FF | _FRAME << 10)  # sub sp, sp, #FRAME

    def number(self, register: int, value: int) -> None:
        if value < 0:
            self._put(0x92800000 | ~value << 5 | register)  # movn, for small ones
        else:
            self._put(0xD2800000 | (value & 0xFFFF) << 5 | register)  # movz
            if value >> 16:
                self._put(0xF2A00000 | value >> 16 << 5 | register)  # movk, lsl #16

    def word(self, register: int, at: int) -> None:
        self._put(0xF9400000 | at // 8 << 10 | _SP << 5 | register)  # ldr

    def address(self, register: int, at: int) -> None:
        self._put(0x91000000 | (at & 0xFFF) << 10 | _SP << 5 | register)  # add register, sp, #at
        if at >> 12:
            self._put(0x91400000 | at >> 12 << 10 | register << 5 | register)  # add register, register, #at, lsl #12

    def text(self, register: int, label: str) -> None:
        self._place(0x10000000 | register, label, lambda far: (far & 3) << 29 | (far >> 2 & 0x7FFFF) << 5)  # adr

    def system_call(self, number: int) -> None:
        self.number(8, number)
        self._put(0xD4000001)  # svc #0

    def jump(self, label: str, how: str = "") -> None:
        if how:
            self._place(0x54000000 | self._JUMPS[how], label, lambda far: (far >> 2 & 0x7FFFF) << 5)  # b.how
        else:
            self._place(0x14000000, label, lambda far: far >> 2 & 0x3FFFFFF)  # b

    def compare(self, number: int) -> None:
        self._put(0xF100001F | number << 10)  # cmp x0, #number

    def add(self, number: int) -> None:
        self._put(0x91000000 | number << 10)  # add x0, x0, #number

    def load(self, at: int) -> None:
        self._put(0xB9800000 | at // 4 << 10 | _SP << 5)  # ldrsw x0, [sp, #at]

    def store(self, at: int) -> None:
        self._put(0xF9000000 | at // 8 << 10 | _SP << 5)  # str x0, [sp, #at]
