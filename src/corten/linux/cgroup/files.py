"""One control file: read it, write it, and compare what the kernel holds with what was wanted.

Rule 1: a file that is absent is None for a reader and an error for a writer.
Rule 2: one write(2) for each value: the kernel takes a value whole or not at all.
"""

from __future__ import annotations

import errno
import os

from corten.errors import InvalidInput, KernelError, Unsupported
from corten.records import Record

UNLIMITED = 1 << 60  # v1 has no word for "max": a counter without a limit reads as 2**63 less a page


class Write(Record):
    """One value for one control file, and how to see that the kernel took it.

    controller: `memory`, `cpu`, `io`, ..., or `cgroup` for the files of the group itself; file, value: what is written;
    expect: what must be read afterwards (see `agrees`; empty: nothing can be read); field: the OCI name, for errors;
    read_from: another file that tells the truth (v2: `cpuset.cpus.effective`); not_below: a file whose present value
    the
    new one must not be below (`checkBeforeUpdate`); otherwise: the write to do where `file` does not exist.
    """

    controller: str
    file: str
    value: str
    expect: str
    field: str = ""
    read_from: str = ""
    not_below: str = ""
    otherwise: Write | None = None


def agrees(text: str, expect: str) -> bool:
    """Whether a file's text is what was expected.

    One word: the text is exactly that. Several words, or one with a space behind: some line begins with the first and
    has
    all the others (`8:0 rbps=1024`).
    `!8:0`: no line begins with `8:0`. Empty: anything.
    """
    if not expect:
        return True
    if expect[0] == "!":
        return not any(line.split()[:1] == [expect[1:]] for line in text.splitlines())
    words = expect.split()
    if len(words) == 1 and expect[-1] != " ":
        return text.strip() == expect
    for line in text.splitlines():
        have = line.split()
        if have and have[0] == words[0] and all(word in have for word in words):
            return True
    return False


def put(directory: str, write: Write) -> None:
    """Do one write in a group's directory and read it back.

    `Unsupported`: there is no such file; `InvalidInput`: below what is in use (`not_below`); `KernelError`: refused,
    or taken and changed.
    """
    path = f"{directory}/{write.file}"
    if write.not_below:
        _check_not_below(directory, write)
    try:
        # for a file that is read elsewhere O_WRONLY is enough
        fd = os.open(path, (os.O_WRONLY if write.read_from or not write.expect else os.O_RDWR) | os.O_CLOEXEC)
    except FileNotFoundError as error:
        if write.otherwise is not None:
            put(directory, write.otherwise)
            return
        raise Unsupported(f"{write.field or write.file}: this kernel has no {path}") from error
    except OSError as error:
        raise KernelError(f"open {path} to write {write.value}", error.errno or 0) from error
    try:
        try:
            os.write(fd, write.value.encode())
        except OSError as error:
            number = error.errno or 0
            raise KernelError(f"write {write.value} to {path}", number, _hint(directory, write, number)) from error
        if write.expect and not write.read_from:
            text = os.pread(fd, 4096, 0).decode()
            if not agrees(text, write.expect) and (len(text) < 4096 or not agrees(require(path), write.expect)):
                raise _changed(path, write, text)
    finally:
        os.close(fd)
    if write.read_from:
        text = require(f"{directory}/{write.read_from}")
        if not agrees(text, write.expect):
            raise _changed(f"{directory}/{write.read_from}", write, text)


def _changed(path: str, write: Write, text: str) -> KernelError:
    held = " / ".join(text.split("\n")).strip(" /") or "nothing"
    name = f" ({write.field})" if write.field else ""
    return KernelError(f"write {write.value} to {path}{name}: wanted {write.expect}, the kernel holds {held}", 0)


def _check_not_below(directory: str, write: Write) -> None:
    used = number(f"{directory}/{write.not_below}")
    wanted = int(write.value) if write.value.isdigit() else None
    if used is not None and wanted is not None and used > wanted:
        raise InvalidInput(
            f"{write.field}: {wanted} bytes is below the {used} bytes in use ({directory}/{write.not_below})"
        )


def _hint(directory: str, write: Write, error: int) -> str:
    if error == errno.EBUSY and write.controller == "memory":
        return f"the group already uses {number(f'{directory}/memory.usage_in_bytes')} bytes"
    if error == errno.ERANGE and write.controller == "cpuset":
        return f"this machine has no such {'CPU' if write.file.endswith('cpus') else 'memory node'}"
    if error == errno.EINVAL and write.file == "memory.limit_in_bytes":
        return "it must not be above memory.memsw.limit_in_bytes: raise memory.swap with it"
    if error == errno.EINVAL and write.file == "memory.memsw.limit_in_bytes":
        return "memory+swap must not be below the memory limit"
    if error in (errno.EINVAL, errno.EACCES) and write.controller in ("cpuset", "cpu"):
        return "the parent group does not have it to give, or the value is out of range"
    if error == errno.ENODEV and write.controller == "io":
        return "no such block device (a whole disk is wanted, not a partition)"
    return write.field


def text(path: str) -> str | None:
    """The whole text of a control file; None where there is no such file, or the kernel has it switched off
    (EOPNOTSUPP)."""
    try:
        return require(path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENODEV, errno.EOPNOTSUPP):
            return None
        raise


def require(path: str) -> str:
    """The whole text of a control file; `OSError` where it cannot be read."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        data = os.read(fd, 4096)
        # kernfs hands out whole lines and may stop short of the buffer: only an empty read is the end
        if len(data) > 2048:
            parts = [data]
            while part := os.read(fd, 65536):
                parts.append(part)
            data = b"".join(parts)
    finally:
        os.close(fd)
    return data.decode("utf-8", "surrogateescape")


def number(path: str) -> int | None:
    """The number in a control file; None for no file, `max`, and v1's way to say that there is no limit."""
    found = text(path)
    if found is None:
        return None
    found = found.strip()
    if not found.lstrip("-").isdigit():
        return None
    value = int(found)
    return None if value >= UNLIMITED or value < 0 else value


def pairs(path: str) -> dict[str, int] | None:
    """A file of `name value` lines; None where there is no such file."""
    found = text(path)
    if found is None:
        return None
    table = {}
    for line in found.splitlines():
        name, _, value = line.partition(" ")
        if value.isdigit():
            table[name] = int(value)
    return table
