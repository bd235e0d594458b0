"""The instructions of a stage as steps with everything in them decided, and the configuration of the image. Pure.

Rule 1: variables in an instruction are those from before it: ENV a=1 b=$a does not see its own a.
Rule 2: ENV holds over ARG; an ARG counts from its line on, and only in its own stage.
Rule 3: an instruction that changes no file is no step.
Source: docs.docker.com/reference/dockerfile; OCI image-spec config.md.
"""

from __future__ import annotations

import posixpath
import re

from corten.build import instructions as i
from corten.build.instructions import Instruction, RunMount
from corten.build.lines import ContainerfileError, Heredoc, read_lines
from corten.build.parse import parse_line
from corten.build.shell_words import WordError, expand, expand_document, expand_words
from corten.build.stages import PROXIES
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHELL = ("/bin/sh", "-c")


class RunStep(Record):
    """Run a program. proxies: variables that are no part of the key."""

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    user: str
    workdir: str
    mounts: tuple[RunMount, ...] = ()
    network: str = ""
    script: str = ""
    """A file to execute; its place is added to `argv`."""
    proxies: tuple[tuple[str, str], ...] = ()


class DirectoryStep(Record):
    """Make a directory with its parents, where it is missing."""

    path: str
    user: str


Step = RunStep | i.Copy | DirectoryStep
"""COPY and ADD stay what they are, with all variables replaced; their target is absolute, with a slash at its end where
it must be a directory."""


class Done(Record):
    """An instruction, what it does to files (None: nothing), and the image's configuration after it."""

    instruction: Instruction
    step: Step | None
    config: dict[str, Any]


class Setting(Record):
    """What a stage is evaluated with. given: `--build-arg`; global_args: those before the first FROM, and platforms."""

    file: str
    escape: str = "\\"
    given: tuple[tuple[str, str], ...] = ()
    global_args: tuple[tuple[str, str], ...] = ()


def evaluate(
    instructions: Iterable[Instruction], base: Mapping[str, Any], setting: Setting, begin: int = 1
) -> tuple[Done, ...]:
    """All instructions of a stage, in order. base: configuration of the image it stands on; begin: line of its FROM.

    ContainerfileError: one cannot be carried out, whatever is in the image.
    """
    state = _State(base, setting)
    triggers = [str(text) for text in base.get("OnBuild") or ()]
    state.config.pop("OnBuild", None)
    own = []
    for text in triggers:
        line = read_lines(text, setting.file).lines[0].replace(number=begin)
        own.append(parse_line(line, "\\", setting.file))
    return tuple(state.do(one) for one in (*own, *instructions))


class _Wrong(ValueError):
    """What is wrong with an instruction; `do` adds where."""


class _State:
    """Where evaluation has come to. `do` adds to errors which instruction they are of."""

    def __init__(self, base: Mapping[str, Any], setting: Setting) -> None:
        self.setting = setting
        self.config: dict[str, Any] = dict(base)
        self.args: dict[str, str] = {}
        self.given = dict(setting.given)
        self.globals = dict(setting.global_args)
        self.has_cmd = False

    # --- values

    @property
    def env(self) -> dict[str, str]:
        """Variables of the image."""
        found = {}
        for text in self.config.get("Env") or ():
            name, _, value = text.partition("=")
            found[name] = value
        return found

    @property
    def values(self) -> dict[str, str]:
        return {"PATH": DEFAULT_PATH, **self.args, **self.env}

    def text(self, word: str) -> str:
        return expand(word, self.values, self.setting.escape)

    def set(self, **changes: Any) -> None:
        self.config = {**self.config, **changes}

    def path(self, word: str) -> str:
        """An absolute path; what is relative begins at the working directory."""
        joined = posixpath.join(self.config.get("WorkingDir") or "/", word)
        return posixpath.normpath("/" + joined.lstrip("/"))

    def do(self, one: Instruction) -> Done:
        try:
            step = _ACTIONS[type(one).__name__](self, one)
        except (WordError, _Wrong) as error:
            raise ContainerfileError(self.setting.file, one.line, one.word, str(error)) from None
        return Done(one, step, self.config)

    # --- instructions that make a layer

    def run(self, one: i.Run) -> Step:
        shell = tuple(self.config.get("Shell") or _SHELL)
        script = ""
        argv: tuple[str, ...] = ()
        if one.script:
            content = one.heredocs[0].content
            content = _without_tabs(content) if one.heredocs[0].strip_tabs else content
            if content.startswith("#!"):
                script = content
            else:
                argv = (*shell, content)
        elif one.command.shell:
            documents = "".join(f"\n{doc.content}{doc.name}" for doc in one.heredocs)
            argv = (*shell, one.command.words[0] + documents)
        else:
            argv = one.command.words
        env = self.env
        named = {**self.args, **env}
        proxies = tuple((n, v) for n, v in self.given.items() if n.upper() in PROXIES and n not in named)
        return RunStep(
            argv,
            tuple(named.items()),
            self.config.get("User") or "",
            self.config.get("WorkingDir") or "/",
            tuple(self.mount(mount) for mount in one.mounts),
            one.network,
            script,
            proxies,
        )

    def mount(self, mount: RunMount) -> RunMount:
        fields = {key: self.text(value) for key, value in mount.fields}
        if fields.get("target"):
            fields["target"] = self.path(fields["target"])
            if fields["target"] == "/":
                raise _Wrong("--mount: target=/: nothing can be mounted on the root")
        for key in ("mode", "uid", "gid"):
            if not fields.get(key, "0").isdigit():
                raise _Wrong(f"--mount: {key}={fields[key]}: is no number")
        for key in ("rw", "readonly", "required"):
            if fields.get(key, "true").lower() not in ("true", "false", "1", "0"):
                raise _Wrong(f"--mount: {key}={fields[key]}: is true or false")
        return RunMount(mount.kind, tuple(fields.items()))

    def copy(self, one: i.Copy) -> Step:
        target = self.text(one.target)
        if not target:
            raise _Wrong(f"the target {one.target} is empty: a variable is not set")
        place = self.path(target)
        directory = target.endswith("/") or posixpath.basename(target) in (".", "..")
        sources = tuple(self.text(source) for source in one.sources)
        for source, written in zip(sources, one.sources, strict=True):
            if not source:
                raise _Wrong(f"the source {written} is empty: a variable is not set")
        if len(sources) + len(one.heredocs) > 1 and not directory:
            raise _Wrong(f"several sources need a directory as target: end it with a slash: {target}/")
        chmod = self.text(one.chmod)
        if chmod and not re.fullmatch(r"0?[0-7]{1,4}", chmod):
            raise _Wrong(f"--chmod={chmod}: is no mode in octal, such as 0644")
        return one.replace(
            sources=sources,
            target=place.rstrip("/") + "/" if directory else place,
            chown=self.text(one.chown),
            chmod=chmod,
            exclude=tuple(self.text(pattern) for pattern in one.exclude),
            heredocs=tuple(doc.replace(content=self.heredoc(doc)) for doc in one.heredocs),
            checksum=self.text(one.checksum),
        )

    def heredoc(self, doc: Heredoc) -> str:
        content = _without_tabs(doc.content) if doc.strip_tabs else doc.content
        return expand_document(content, self.values) if doc.expand else content

    def workdir(self, one: i.Workdir) -> Step:
        path = self.text(one.path)
        if not path:
            raise _Wrong(f"the path {one.path} is empty: a variable is not set")
        self.set(WorkingDir=self.path(path))
        return DirectoryStep(self.config["WorkingDir"], self.config.get("User") or "")

    # --- instructions about the configuration

    def arg(self, one: i.Arg) -> None:
        for name, default in one.values:
            value = self.given.get(name)
            if value is None and default is not None:
                value = self.text(default)
            if value is None:
                value = self.globals.get(name)
            if value is not None:
                self.args[name] = value

    def set_env(self, one: i.Env) -> None:
        new = {self.text(name): self.text(value) for name, value in one.values}
        self.set(Env=[f"{name}={value}" for name, value in {**self.env, **new}.items()])

    def label(self, one: i.Label) -> None:
        new = {self.text(name): self.text(value) for name, value in one.values}
        self.set(Labels={**(self.config.get("Labels") or {}), **new})

    def command(self, command: i.Command) -> list[str]:
        return [*(self.config.get("Shell") or _SHELL), *command.words] if command.shell else list(command.words)

    def cmd(self, one: i.Cmd) -> None:
        self.has_cmd = True
        self.set(Cmd=self.command(one.command))

    def entrypoint(self, one: i.Entrypoint) -> None:
        self.set(Entrypoint=self.command(one.command))
        if not self.has_cmd:
            self.config.pop("Cmd", None)  # what the base image gives its own entrypoint

    def shell(self, one: i.Shell) -> None:
        self.set(Shell=list(one.words))

    def user(self, one: i.User) -> None:
        user = self.text(one.user)
        if not user:
            raise _Wrong(f"the user {one.user} is empty: a variable is not set")
        self.set(User=user)

    def expose(self, one: i.Expose) -> None:
        found = dict(self.config.get("ExposedPorts") or {})
        for written in one.ports:
            for word in expand_words(written, self.values, self.setting.escape):
                found.update({port: {} for port in _ports(word)})
        self.set(ExposedPorts=found)

    def volume(self, one: i.Volume) -> None:
        found = dict(self.config.get("Volumes") or {})
        for path in one.paths:
            text = self.text(path)
            if not text:
                raise _Wrong(f"the path {path} is empty: a variable is not set")
            found[text] = {}
        self.set(Volumes=found)

    def stop_signal(self, one: i.StopSignal) -> None:
        from corten.errors import InvalidInput
        from corten.linux import signals

        signal = self.text(one.signal)
        try:
            signals.parse(signal)
        except InvalidInput as error:
            raise _Wrong(str(error)) from None
        self.set(StopSignal=signal)

    def healthcheck(self, one: i.Healthcheck) -> None:
        if one.command is None:
            self.set(Healthcheck={"Test": ["NONE"]})
            return
        found: dict[str, Any] = {"Test": ["CMD-SHELL" if one.command.shell else "CMD", *one.command.words]}
        names = {
            "interval": "Interval",
            "timeout": "Timeout",
            "start-period": "StartPeriod",
            "start-interval": "StartInterval",
        }
        for key, value in one.options:
            if key == "retries":
                found["Retries"] = int(value)
            else:
                found[names[key]] = _nanoseconds(value)
        self.set(Healthcheck=found)

    def maintainer(self, _: i.Maintainer) -> None:
        """The author is the image's, not a part of its configuration."""

    def onbuild(self, one: i.OnBuild) -> None:
        self.set(OnBuild=[*(self.config.get("OnBuild") or ()), one.trigger])


_ACTIONS: dict[str, Any] = {
    "Run": _State.run,
    "Copy": _State.copy,
    "Workdir": _State.workdir,
    "Arg": _State.arg,
    "Env": _State.set_env,
    "Label": _State.label,
    "Cmd": _State.cmd,
    "Entrypoint": _State.entrypoint,
    "Shell": _State.shell,
    "User": _State.user,
    "Expose": _State.expose,
    "Volume": _State.volume,
    "StopSignal": _State.stop_signal,
    "Healthcheck": _State.healthcheck,
    "Maintainer": _State.maintainer,
    "OnBuild": _State.onbuild,
}


def _without_tabs(content: str) -> str:
    return re.sub(r"^\t+", "", content, flags=re.MULTILINE)


def _ports(word: str) -> list[str]:
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?(?:/(tcp|udp|sctp))?", word, re.IGNORECASE)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (1, 0)
    if match is None or not 0 < first <= last <= 65535:
        raise _Wrong(f"{word}: is no port: write 80, 80/udp or 8000-8010")
    return [f"{port}/{(match[3] or 'tcp').lower()}" for port in range(first, last + 1)]


_UNITS = {"ns": 1, "us": 1000, "µs": 1000, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def _nanoseconds(text: str) -> int:
    parts = re.findall(r"([0-9.]+)(ns|us|µs|ms|s|m|h)", text)
    return int(sum(float(number) * _UNITS[unit] for number, unit in parts))
