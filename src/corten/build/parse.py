"""A Containerfile read into typed instructions. Pure.

Rule 1: whatever can be seen to be wrong without building is an error here, with file, line and instruction.
Rule 2: nothing is guessed: an unknown instruction or flag is refused, with the nearest known one.
"""

from __future__ import annotations

import json
import re

from corten.build import instructions as i
from corten.build.lines import ContainerfileError, Line, Source, heredoc_mark, read_lines
from corten.build.shell_words import split

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.build.instructions import Command, Instruction

MOUNT_KINDS = ("bind", "cache", "tmpfs", "secret")
_MOUNT_FIELDS = {
    "bind": ("target", "source", "from", "rw", "readonly"),
    "cache": ("target", "id", "sharing", "mode", "uid", "gid", "readonly"),
    "tmpfs": ("target", "size"),
    "secret": ("target", "id", "required", "mode", "uid", "gid", "env"),
}
_FIELD_ALIASES = {"dst": "target", "destination": "target", "src": "source", "ro": "readonly", "readwrite": "rw"}
_NOT_YET = {
    "ssh": "forwarding of ssh agents is not available: use --mount=type=secret for a key",
}


class _Wrong(ValueError):
    """What is wrong with an instruction; `parse` adds where."""


def parse(text: str, name: str = "Containerfile") -> tuple[Source, tuple[Instruction, ...]]:
    """The file's logical lines and its instructions. ContainerfileError: it is wrong, at that line."""
    source = read_lines(text, name)
    return source, tuple(parse_line(line, source.escape, name) for line in source.lines)


def parse_line(line: Line, escape: str, name: str) -> Instruction:
    """One instruction."""
    word, *more = line.text.split(None, 1)
    rest = more[0] if more else ""
    upper = word.upper()
    try:
        read = _READERS.get(upper)
        if read is None:
            raise _Wrong(_unknown("instruction", upper, list(_READERS)))
        if not rest.strip():
            raise _Wrong("says nothing after its name")
        return read(_Line(line, rest.strip(), escape, name))
    except _Wrong as wrong:
        raise ContainerfileError(name, line.number, upper, str(wrong)) from None


def _unknown(what: str, word: str, known: list[str]) -> str:
    import difflib

    near = difflib.get_close_matches(word, known, 1)
    return f"unknown {what}" + (f": did you mean {near[0]}?" if near else f": there are {', '.join(sorted(known))}")


class _Line:
    """The rest of an instruction while it is read: its flags come off first."""

    def __init__(self, line: Line, rest: str, escape: str, file: str) -> None:
        self.line, self.rest, self.escape, self.file = line, rest, escape, file
        self.base: dict[str, Any] = {"line": line.number, "text": line.text}

    def flags(self, once: tuple[str, ...], many: tuple[str, ...] = (), switches: tuple[str, ...] = ()) -> _Flags:
        """Take `--NAME[=VALUE]` off the beginning."""
        found = _Flags()
        known = [f"--{name}" for name in (*once, *many, *switches)]
        while self.rest.startswith("--"):
            word = split(self.rest, self.escape)[0]
            self.rest = self.rest[_end_of_first(self.rest, self.escape) :].lstrip()
            if word == "--":
                break
            key, equals, value = word[2:].partition("=")
            if f"--{key}" not in known:
                raise _Wrong(f"--{key}: {_unknown('flag', f'--{key}', known)}" if known else f"--{key}: has no flags")
            if key in switches:
                if value.lower() not in ("", "true", "false", "1", "0") or (equals and not value):
                    raise _Wrong(f"--{key}={value}: is true or false")
                found.switches[key] = value.lower() in ("", "true", "1")
            elif not equals or not value:
                raise _Wrong(f"--{key}: needs a value, as --{key}=VALUE")
            elif key in many:
                found.many.setdefault(key, []).append(value)
            elif key in found.once:
                raise _Wrong(f"--{key}: is given twice")
            else:
                found.once[key] = value
        if not self.rest:
            raise _Wrong("has flags and nothing else")
        return found

    def words(self) -> list[str]:
        return split(self.rest, self.escape)

    def json(self) -> list[str] | None:
        """The JSON form; None if this is none. As docker has it, what is no list of texts is text for the shell."""
        if not self.rest.startswith("["):
            return None
        try:
            found = json.loads(self.rest)
        except ValueError:
            return None
        good = isinstance(found, list) and all(isinstance(word, str) for word in found)
        return found if good else None

    def command(self) -> Command:
        found = self.json()
        if found is None:
            return i.Command((self.rest,), True)
        if not found:
            raise _Wrong("the list is empty")
        return i.Command(tuple(found), False)


class _Flags:
    def __init__(self) -> None:
        self.once: dict[str, str] = {}
        self.many: dict[str, list[str]] = {}
        self.switches: dict[str, bool] = {}


def _end_of_first(text: str, escape: str) -> int:
    """Where the first word ends."""
    for end in range(1, len(text) + 1):
        if end == len(text) or (text[end].isspace() and len(split(text[: end + 1] + "x", escape)) == 2):
            return end
    return len(text)


# --- readers


def _from(at: _Line) -> Instruction:
    flags = at.flags(("platform",))
    words = at.words()
    if len(words) == 3 and words[1].upper() == "AS":
        name = words[2].lower()
        if not re.fullmatch(r"[a-z][a-z0-9_.-]*", name):
            raise _Wrong(f"a stage cannot be called {words[2]!r}: a letter, then letters, digits, '_', '.' and '-'")
        return i.From(**at.base, image=words[0], platform=flags.once.get("platform", ""), name=name)
    if len(words) != 1:
        raise _Wrong("takes one image, or: IMAGE AS NAME")
    return i.From(**at.base, image=words[0], platform=flags.once.get("platform", ""))


def _arg(at: _Line) -> Instruction:
    values: list[tuple[str, str | None]] = []
    for word in at.words():
        name, equals, value = word.partition("=")
        if not name:
            raise _Wrong(f"{word!r} has no name")
        values.append((name, value if equals else None))
    return i.Arg(**at.base, values=tuple(values))


def _pairs(at: _Line, old_form: bool) -> tuple[tuple[str, str], ...]:
    words = at.words()
    if "=" not in words[0]:
        if not old_form or len(words) < 2:
            raise _Wrong(f"{words[0]!r} has no '=': write NAME=VALUE")
        name, rest = at.rest.split(None, 1)
        return ((name, rest),)
    found = []
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise _Wrong(f"{word!r} has no '=': write NAME=VALUE, and quotes around what has spaces")
        if not name:
            raise _Wrong(f"{word!r} has no name before '='")
        found.append((name, value))
    return tuple(found)


def _env(at: _Line) -> Instruction:
    return i.Env(**at.base, values=_pairs(at, True))


def _label(at: _Line) -> Instruction:
    return i.Label(**at.base, values=_pairs(at, True))


def _run(at: _Line) -> Instruction:
    flags = at.flags(("network", "security"), ("mount",))
    if flags.once.get("security", "sandbox") != "sandbox":
        raise _Wrong("--security: builds have no privileges to give: leave it out")
    network = flags.once.get("network", "")
    if network not in ("", "default", "none", "host"):
        raise _Wrong(f"--network={network}: use default, none or host")
    heredocs = at.line.heredocs
    script = len(heredocs) == 1 and len(at.words()) == 1 and heredoc_mark(at.words()[0]) is not None
    mounts = tuple(_mount(text) for text in flags.many.get("mount", ()))
    return i.Run(
        **at.base, command=at.command(), mounts=mounts, network=network, heredocs=heredocs, script=script
    )


def _mount(text: str) -> i.RunMount:
    """`type=cache,target=/x,…`, quotes taken off later with the variables."""
    fields: dict[str, str] = {}
    for word in _fields(text):
        key, equals, value = word.partition("=")
        key = _FIELD_ALIASES.get(key.lower(), key.lower())
        if key in fields:
            raise _Wrong(f"--mount: {key} is given twice in {text!r}")
        fields[key] = value if equals else "true"
    kind = fields.pop("type", "bind")
    if kind in _NOT_YET:
        raise _Wrong(f"--mount=type={kind}: {_NOT_YET[kind]}")
    if kind not in _MOUNT_FIELDS:
        raise _Wrong(f"--mount=type={kind}: use {', '.join(MOUNT_KINDS)}")
    for key in fields:
        if key not in _MOUNT_FIELDS[kind]:
            raise _Wrong(f"--mount=type={kind}: {key}: {_unknown('field', key, list(_MOUNT_FIELDS[kind]))}")
    if "$" in fields.get("from", ""):
        raise _Wrong(f"--mount: from={fields['from']}: has no variables: name a stage with FROM … AS NAME")
    if kind != "secret" and not fields.get("target"):
        raise _Wrong(f"--mount=type={kind}: says not where: give target=/PATH")
    if kind == "secret" and not fields.get("id") and not fields.get("target"):
        raise _Wrong("--mount=type=secret: says not which: give id=NAME")
    if fields.get("sharing", "shared") not in ("shared", "private", "locked"):
        raise _Wrong(f"--mount: sharing={fields['sharing']}: use shared, private or locked")
    return i.RunMount(kind, tuple(fields.items()))


def _fields(text: str) -> list[str]:
    import csv

    text = text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
    return next(csv.reader([text]), [])


def _copy(at: _Line) -> Instruction:
    add = at.line.text[:3].upper() == "ADD"
    own = ("checksum",) if add else ("from",)
    switches = ("link", "keep-git-dir", "unpack") if add else ("link", "parents")
    flags = at.flags(("chown", "chmod", *own), ("exclude",), switches)
    if flags.switches.get("keep-git-dir"):
        raise _Wrong("--keep-git-dir: git repositories are not fetched: clone it first, and COPY it")
    if "$" in flags.once.get("from", ""):
        raise _Wrong(f"--from={flags.once['from']}: has no variables: name a stage with FROM … AS NAME")
    words = at.json() or at.words()
    if len(words) < 2:
        raise _Wrong("needs a source and a target")
    marks = [mark.name if (mark := heredoc_mark(word)) is not None else None for word in words[:-1]]
    known = {heredoc.name for heredoc in at.line.heredocs}
    sources = tuple(word for word, mark in zip(words, marks, strict=False) if mark not in known or mark is None)
    if at.line.heredocs and flags.once.get("from"):
        raise _Wrong("--from: a here-document comes from no stage")
    if add and any(re.match(r"(git@|git://)|https?://.*\.git(#|$)", source) for source in sources):
        raise _Wrong("git repositories are not fetched: clone it first, and COPY it")
    return i.Copy(
        **at.base,
        sources=sources,
        target=words[-1],
        from_=flags.once.get("from", ""),
        chown=flags.once.get("chown", ""),
        chmod=flags.once.get("chmod", ""),
        link=flags.switches.get("link", False),
        parents=flags.switches.get("parents", False),
        exclude=tuple(flags.many.get("exclude", ())),
        heredocs=at.line.heredocs,
        add=add,
        checksum=flags.once.get("checksum", ""),
        unpack=flags.switches.get("unpack"),
    )


def _cmd(at: _Line) -> Instruction:
    return i.Cmd(**at.base, command=_perhaps_empty(at))


def _entrypoint(at: _Line) -> Instruction:
    return i.Entrypoint(**at.base, command=_perhaps_empty(at))


def _perhaps_empty(at: _Line) -> Command:
    return i.Command((), False) if at.json() == [] else at.command()


def _shell(at: _Line) -> Instruction:
    words = at.json()
    if not words:
        raise _Wrong('takes a JSON list, such as ["/bin/bash", "-c"]')
    return i.Shell(**at.base, words=tuple(words))


def _workdir(at: _Line) -> Instruction:
    return i.Workdir(**at.base, path=at.rest)


def _user(at: _Line) -> Instruction:
    if len(at.words()) != 1:
        raise _Wrong("takes one user, USER[:GROUP]")
    return i.User(**at.base, user=at.rest)


def _expose(at: _Line) -> Instruction:
    return i.Expose(**at.base, ports=tuple(at.words()))


def _volume(at: _Line) -> Instruction:
    paths = at.json() or at.words()
    if not all(path.strip() for path in paths):
        raise _Wrong("a path is empty")
    return i.Volume(**at.base, paths=tuple(paths))


def _stop_signal(at: _Line) -> Instruction:
    if len(at.words()) != 1:
        raise _Wrong("takes one signal")
    return i.StopSignal(**at.base, signal=at.rest)


_TIMES = ("interval", "timeout", "start-period", "start-interval")


def _healthcheck(at: _Line) -> Instruction:
    if at.rest.upper() == "NONE":
        return i.Healthcheck(**at.base, command=None)
    flags = at.flags((*_TIMES, "retries"))
    for name in _TIMES:
        value = flags.once.get(name, "1s")
        if not re.fullmatch(r"([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+|0", value):
            raise _Wrong(f"--{name}={value}: is no time: write 30s or 1m30s")
    if not flags.once.get("retries", "1").isdigit():
        raise _Wrong(f"--retries={flags.once['retries']}: is no number")
    word, _, rest = at.rest.partition(" ")
    if word.upper() != "CMD" or not rest.strip():
        raise _Wrong("takes NONE, or CMD and a command")
    at.rest = rest.strip()
    return i.Healthcheck(**at.base, command=at.command(), options=tuple(flags.once.items()))


def _maintainer(at: _Line) -> Instruction:
    return i.Maintainer(**at.base, name=at.rest)


def _onbuild(at: _Line) -> Instruction:
    word = at.rest.split(None, 1)[0].upper()
    if word in ("ONBUILD", "FROM", "MAINTAINER"):
        raise _Wrong(f"{word} cannot be a trigger")
    parse_line(at.line.replace(text=at.rest), at.escape, at.file)  # wrong now is better than wrong later
    heredocs = "".join(f"\n{doc.content}{doc.name}" for doc in at.line.heredocs)
    return i.OnBuild(**at.base, trigger=at.rest + heredocs)


_READERS: dict[str, Callable[[_Line], Instruction]] = {
    "ADD": _copy,
    "ARG": _arg,
    "CMD": _cmd,
    "COPY": _copy,
    "ENTRYPOINT": _entrypoint,
    "ENV": _env,
    "EXPOSE": _expose,
    "FROM": _from,
    "HEALTHCHECK": _healthcheck,
    "LABEL": _label,
    "MAINTAINER": _maintainer,
    "ONBUILD": _onbuild,
    "RUN": _run,
    "SHELL": _shell,
    "STOPSIGNAL": _stop_signal,
    "USER": _user,
    "VOLUME": _volume,
    "WORKDIR": _workdir,
}
