"""A seccomp profile read from a file: OCI's `linux.seccomp`, or the format of docker and podman.

Docker's and podman's has besides: `archMap` (the architectures of each machine), and in each rule `includes` and
`excludes` by capability, machine and kernel version, which are decided here, so that what comes out is plain OCI.
Source: moby/profiles seccomp/seccomp.go and containers/common pkg/seccomp/types.go for the fields and their meaning.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput
from corten.linux.seccomp import Seccomp, SyscallArg, SyscallRule
from corten.linux.syscalls import MACHINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Go's names of the machines whose calls can be made here
_MACHINES = {"x86_64": {"amd64", "x86", "x32"}, "aarch64": {"arm64", "arm"}}
_NATIVE = {"x86_64": "SCMP_ARCH_X86_64", "aarch64": "SCMP_ARCH_AARCH64"}


def read(path: str, capabilities: Iterable[str] = ()) -> Seccomp:
    """The profile in a JSON file. capabilities: what the container holds. Errors: `InvalidInput`, file and field."""
    import json

    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except OSError as error:
        raise InvalidInput(f"seccomp profile {path}: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInput(f"seccomp profile {path}: not JSON: {error}") from None
    try:
        return from_json(data, capabilities)
    except InvalidInput as error:
        raise InvalidInput(f"seccomp profile {path}: {error}") from None


def from_json(
    data: object, capabilities: Iterable[str] = (), machine: str = MACHINE, kernel: str = ""
) -> Seccomp:
    """Parsed JSON as a profile. kernel: the release that `minKernel` is compared with, this one's if empty."""
    top = _Object(data, "")
    held = frozenset(capabilities)
    release = _release(kernel or os.uname().release, "kernel")
    rules = tuple(
        _rule(entry)
        for entry in top.objects("syscalls")
        if _applies(entry, held, machine, release)
    )
    return Seccomp(
        default_action=top.text("defaultAction", required=True),
        default_errno_ret=top.number("defaultErrnoRet"),
        architectures=(*top.texts("architectures"), *_mapped(top, machine)),
        flags=top.texts("flags"),
        listener_path=top.text("listenerPath"),
        listener_metadata=top.text("listenerMetadata"),
        syscalls=rules,
    )


def _mapped(top: _Object, machine: str) -> tuple[str, ...]:
    for entry in top.objects("archMap"):
        if entry.text("architecture", required=True) == _NATIVE[machine]:
            return (_NATIVE[machine], *entry.texts("subArchitectures"))
    return ()


def _rule(entry: _Object) -> SyscallRule:
    name = entry.text("name")  # docker's format before 1.12
    names = entry.texts("names") or ((name,) if name else ())
    if not names:
        raise InvalidInput(f"{entry.place}.names: missing or empty")
    return SyscallRule(
        names=names,
        action=entry.text("action", required=True),
        errno_ret=entry.number("errnoRet"),
        args=tuple(
            SyscallArg(
                arg.number("index", required=True) or 0,
                arg.number("value", required=True) or 0,
                arg.number("valueTwo") or 0,
                arg.text("op", required=True),
            )
            for arg in entry.objects("args")
        ),
    )


def _applies(entry: _Object, held: frozenset[str], machine: str, release: tuple[int, int]) -> bool:
    """All that `includes` names must hold, and of `excludes` nothing."""
    includes, excludes = entry.object("includes"), entry.object("excludes")
    here = _MACHINES[machine]
    if includes is not None:
        arches, least = includes.texts("arches"), includes.text("minKernel")
        if arches and here.isdisjoint(arches):
            return False
        if not held.issuperset(includes.texts("caps")):
            return False
        if least and release < _release(least, f"{includes.place}.minKernel"):
            return False
    if excludes is not None:
        least = excludes.text("minKernel")
        if not here.isdisjoint(excludes.texts("arches")) or not held.isdisjoint(excludes.texts("caps")):
            return False
        if least and release >= _release(least, f"{excludes.place}.minKernel"):
            return False
    return True


def _release(text: str, place: str) -> tuple[int, int]:
    major, _, rest = text.partition(".")
    minor = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    if not major.isdecimal() or not minor:
        raise InvalidInput(f"{place}: {text!r} is not a kernel version such as 5.10")
    return int(major), int(minor)


class _Object:
    """A JSON object that knows where it stands, for errors. `null` is the same as absent."""

    def __init__(self, data: object, place: str) -> None:
        if not isinstance(data, dict):
            raise InvalidInput(f"{place or 'the whole'}: expected an object")
        self.data: dict[str, Any] = data
        self.place = place

    def _get(self, key: str, kind: type, word: str, required: bool) -> Any:
        value = self.data.get(key)
        if value is None:
            if required:
                raise InvalidInput(f"{self._at(key)}: missing")
            return None
        if type(value) is not kind:
            raise InvalidInput(f"{self._at(key)}: expected {word}")
        return value

    def _at(self, key: str) -> str:
        return f"{self.place}.{key}" if self.place else key

    def text(self, key: str, required: bool = False) -> str:
        return self._get(key, str, "a string", required) or ""

    def number(self, key: str, required: bool = False) -> int | None:
        value: int | None = self._get(key, int, "a whole number", required)
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        found = self._get(key, list, "an array of strings", False) or []
        if not all(isinstance(item, str) for item in found):
            raise InvalidInput(f"{self._at(key)}: expected an array of strings")
        return tuple(found)

    def object(self, key: str) -> _Object | None:
        value = self.data.get(key)
        return None if value is None else _Object(value, self._at(key))

    def objects(self, key: str) -> list[_Object]:
        found = self._get(key, list, "an array of objects", False) or []
        return [_Object(item, f"{self._at(key)}[{number}]") for number, item in enumerate(found)]
