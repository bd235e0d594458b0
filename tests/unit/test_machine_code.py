"""Programs made as data: they run here; for the other machine the instructions are what an assembler makes of them."""

import os
import subprocess
import sys

import pytest

from corten.linux import machine_code, vfork
from corten.linux.machine_code import ENVIRONMENT, Address, Program, Text, Word
from corten.runtime import init_program


def run(program: Program, **environment: str) -> subprocess.CompletedProcess[bytes]:
    fd = machine_code.sealed("corten:test", program.executable())
    try:
        return subprocess.run(["x"], executable=f"/proc/self/fd/{fd}", pass_fds=(fd,), env=environment,
                              capture_output=True, check=False)  # fmt: skip
    finally:
        os.close(fd)


def test_calls_jumps_and_words() -> None:
    does = Program()
    does.set(3)
    does.label("again")
    does.store(0)
    does.call("write", 1, Text(b"hello "), 6)
    does.jump_if("!=", 6, "bad")
    does.load(0)
    does.add(1)
    does.jump_if("<=", 4, "again")
    does.store(8)
    does.call("write", 1, Address(8), 1)
    does.call("close", -1)
    does.jump_if("<", 0, "good")
    does.label("bad")
    does.call("exit_group", 1)
    does.label("good")
    does.call("exit_group", Word(8))
    done = run(does)
    assert (done.returncode, done.stdout) == (5, b"hello hello \x05")


def test_environment_lies_above_the_frame() -> None:
    does = Program()
    does.call("write", 1, Word(ENVIRONMENT), 3)
    does.call("exit_group", 0)
    assert run(does, a="b").stdout == b"a=b"


def test_nobody_writes_to_a_sealed_file() -> None:
    fd = machine_code.sealed("corten:test", b"x")
    try:
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"y", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
    finally:
        os.close(fd)


def test_instructions_of_aarch64() -> None:
    """By the manual (Arm ARM C6.2), as binutils disassembles them: there may be no such machine here."""
    does = Program("aarch64")
    does.call("kill", -100, 0x12345, Word(16), Address(8), Address(0x2008))
    does.store(24)
    does.load(28)
    does.add(128)
    does.jump_if("<=", 7, "end")
    does.jump("end")
    does.label("end")
    does.call("write", 1, Text(b"hello"))
    code = does.executable()[120:]
    found = [int.from_bytes(code[at : at + 4], "little") for at in range(0, len(code), 4)]
    assert found[:19] == [
        0xD10803FF,  # sub sp, sp, #512
        0x92800C60,  # mov x0, #-100
        0xD28468A1, 0xF2A00021,  # mov x1, #0x2345; movk x1, #1, lsl #16
        0xF9400BE2,  # ldr x2, [sp, #16]
        0x910023E3,  # add x3, sp, #8
        0x910023E4, 0x91400884,  # add x4, sp, #8; add x4, x4, #2, lsl #12
        0xD2801028, 0xD4000001,  # mov x8, #129; svc #0
        0xF9000FE0,  # str x0, [sp, #24]
        0xB9801FE0,  # ldrsw x0, [sp, #28]
        0x91020000,  # add x0, x0, #128
        0xF1001C1F, 0x5400004D,  # cmp x0, #7; b.le +8
        0x14000001,  # b +4
        0xD2800020,  # mov x0, #1
        0x10000061,  # adr x1, +12
        0xD2800808,  # mov x8, #64
    ]  # fmt: skip
    assert code[-8:] == b"hello\0\0\0"


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_init_is_small(machine: str) -> None:
    assert len(init_program.code(3, 3, 0, machine)) < 2048


def test_what_an_init_says_is_looked_at_with_care() -> None:
    ended = (2).to_bytes(8, "little") + bytes(8) + (2).to_bytes(8, "little") + bytes(8) + (9).to_bytes(8, "little")
    told = init_program.heard(ended.ljust(136, b"\0") + b"sh\n".ljust(16, b"\0"))
    assert told is not None
    assert not isinstance(told, int)
    assert (told.pid, told.status, told.name) == (2, 9, "sh")
    assert init_program.heard((1).to_bytes(8, "little") + (-2).to_bytes(8, "little", signed=True)) == 2
    for other in (b"", b"Ended\0x", ended, (3).to_bytes(8, "little") * 19):
        assert init_program.heard(other) is None


def test_child_in_borrowed_memory() -> None:
    """It changes what is ours, and nothing of what is a process's own; an exec by descriptor with words of its own."""
    seen: list[int] = []

    def child() -> int:
        seen.append(os.getpid())
        os.chdir("/proc")
        return 7

    here = os.getcwd()
    made = vfork.clone3(0, None, child)
    assert seen == [made.pid]
    assert os.getcwd() == here
    assert os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1]) == 7
    os.close(made.pidfd)
    program = os.open("/bin/sh", os.O_RDONLY | os.O_CLOEXEC)
    made = vfork.clone3(0, None, lambda: (program, [b"sh", b"-c", b"exit $A"], [b"A=9"]))
    os.close(program)
    assert os.waitstatus_to_exitcode(os.waitpid(made.pid, 0)[1]) == 9
    os.close(made.pidfd)
    with pytest.raises(OSError, match="Invalid argument"):
        vfork.clone3(1 << 40, None, child)


def test_who_lent_its_memory_to_one_that_was_killed_ends_too() -> None:
    work = "lambda: os.kill(os.getpid(), 9)"
    script = f"import os; from corten.linux import vfork; vfork.clone3(0, None, {work}); print(1)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (125, "")
    assert done.stderr == "corten: the set-up of a container was killed, and its launcher cannot go on after that\n"
