"""A Containerfile as stages, and which of them are needed for what. Pure.

Rule 1: a stage is built only if the target needs it: by FROM, COPY --from, or RUN --mount=from.
Rule 2: a name that is an earlier stage means that stage; any other is an image.
"""

from __future__ import annotations

from corten.build import instructions as i
from corten.build.instructions import Instruction
from corten.build.lines import ContainerfileError, Source
from corten.build.shell_words import WordError, expand
from corten.errors import InvalidInput
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
"""Build arguments that need no ARG and are no part of any key, in both cases; docker's list."""


class Stage(Record):
    """One FROM and what follows it. base: what it stands on, variables replaced: a stage, an image or `scratch`."""

    number: int
    name: str
    base: str
    begin: i.From
    instructions: tuple[Instruction, ...]
    platform: str = ""


class Containerfile(Record):
    """A whole file. global_args: variables before the first FROM, with their values."""

    name: str
    escape: str
    stages: tuple[Stage, ...]
    global_args: tuple[tuple[str, str], ...] = ()

    def find(self, word: str, before: int) -> int | None:
        """The number of an earlier stage that a name or number means; None: it is no stage."""
        for stage in reversed(self.stages[:before]):
            if stage.name and stage.name == word.lower():
                return stage.number
        return int(word) if word.isascii() and word.isdigit() and int(word) < before else None


def platform_args(machine: str) -> dict[str, str]:
    """The variables about platforms that every FROM may use. machine: as uname has it."""
    architecture, variant = {"x86_64": ("amd64", ""), "aarch64": ("arm64", "")}.get(machine, (machine, ""))
    found = {}
    for side in ("BUILD", "TARGET"):
        found[f"{side}PLATFORM"] = f"linux/{architecture}"
        found[f"{side}OS"] = "linux"
        found[f"{side}ARCH"] = architecture
        found[f"{side}VARIANT"] = variant
    return found


def read_stages(
    source: Source, instructions: tuple[Instruction, ...], given: Mapping[str, str], platform: Mapping[str, str]
) -> Containerfile:
    """Instructions as stages. given: `--build-arg`; platform: see `platform_args`. ContainerfileError."""
    file, values, escape = source.name, dict(platform), source.escape
    global_args: dict[str, str] = {}
    stages: list[Stage] = []
    body: list[Instruction] = []
    for one in instructions:
        if isinstance(one, i.From):
            base, wanted = (_expanded(word, values, escape, file, one) for word in (one.image, one.platform))
            if not base:
                raise ContainerfileError(file, one.line, "FROM", f"{one.image} is empty: a variable is not set")
            if one.name and any(stage.name == one.name for stage in stages):
                raise ContainerfileError(file, one.line, "FROM", f"there is a stage {one.name} already")
            body = []
            stages.append(Stage(len(stages), one.name, base, one, (), wanted))
        elif stages:
            body.append(one)
            stages[-1] = stages[-1].replace(instructions=tuple(body))
        elif isinstance(one, i.Arg):
            for name, default in one.values:
                value = given.get(name)
                if value is None and default is not None:
                    value = _expanded(default, values, escape, file, one)
                if value is not None:
                    values[name] = global_args[name] = value
        else:
            raise ContainerfileError(file, one.line, one.word, "comes before the first FROM")
    if not stages:
        raise InvalidInput(f"{file}: has no FROM: a build begins with FROM IMAGE or FROM scratch")
    return Containerfile(file, escape, tuple(stages), tuple(global_args.items()))


def _expanded(word: str, values: Mapping[str, str], escape: str, file: str, at: Instruction) -> str:
    try:
        return expand(word, values, escape)
    except WordError as error:
        raise ContainerfileError(file, at.line, at.word, f"{word}: {error}") from None


def references(stage: Stage) -> Iterator[tuple[str, Instruction]]:
    """What a stage names besides its base: words after `from=`, each with the instruction that names it."""
    for one in stage.instructions:
        if isinstance(one, i.Copy) and one.from_:
            yield one.from_, one
        elif isinstance(one, i.Run):
            for mount in one.mounts:
                word = dict(mount.fields).get("from")
                if word:
                    yield word, one


def dependencies(file: Containerfile, number: int) -> tuple[int, ...]:
    """The stages that a stage needs itself, without theirs. ContainerfileError: it needs itself, or a later one."""
    stage = file.stages[number]
    found = {file.find(stage.base, number)}
    for word, at in references(stage):
        earlier = file.find(word, number)
        if earlier is None and file.find(word, len(file.stages)) is not None:
            why = "is this very stage" if file.find(word, number + 1) is not None else "is a later stage"
            raise ContainerfileError(file.name, at.line, at.word, f"from={word} {why}: only earlier ones can be used")
        if earlier is None and word.isdigit():
            raise ContainerfileError(file.name, at.line, at.word, f"from={word}: there is no stage {word}")
        found.add(earlier)
    return tuple(sorted(one for one in found if one is not None))


def needed(file: Containerfile, target: str = "") -> tuple[int, ...]:
    """The stages to build for a target (empty: the last), each after those it needs. InvalidInput: no such target."""
    goal: int | None = len(file.stages) - 1
    if target:
        goal = file.find(target, len(file.stages))
        if goal is None:
            names = ", ".join(stage.name or str(stage.number) for stage in file.stages)
            raise InvalidInput(f"--target {target}: {file.name} has no such stage: there are {names}")
    assert goal is not None
    found: set[int] = set()
    waiting = [goal]
    while waiting:
        number = waiting.pop()
        if number not in found:
            found.add(number)
            waiting += dependencies(file, number)
    return tuple(sorted(found))  # an earlier stage never needs a later one
