"""The instructions of a Containerfile, typed. Texts are as they were written: variables are replaced when it is built.

Source: docs.docker.com/reference/dockerfile.
"""

from __future__ import annotations

from corten.build.lines import Heredoc
from corten.records import Record


class Command(Record):
    """What RUN, CMD, ENTRYPOINT and HEALTHCHECK name. words: one text for the shell, or a list to execute."""

    words: tuple[str, ...]
    shell: bool


class Instruction(Record):
    """Base of all. line: where it begins; text: as written, for the history of the image and for errors."""

    line: int
    text: str

    @property
    def word(self) -> str:
        """Its name, as errors show it."""
        return self.text.split(None, 1)[0].upper() if self.text else ""


class From(Instruction):
    """Begin of a stage. name: empty without AS."""

    image: str
    platform: str = ""
    name: str = ""


class Arg(Instruction):
    """Variables of the build; without a default None."""

    values: tuple[tuple[str, str | None], ...]


class Env(Instruction):
    """Variables of the image."""

    values: tuple[tuple[str, str], ...]


class Label(Instruction):
    """Labels of the image."""

    values: tuple[tuple[str, str], ...]


class RunMount(Record):
    """`RUN --mount`: kind, and its fields as written (`target`, `source`, `from`, `id`, …)."""

    kind: str
    fields: tuple[tuple[str, str], ...] = ()


class Run(Instruction):
    """A command whose changes become a layer. script: the whole command is one here-document."""

    command: Command
    mounts: tuple[RunMount, ...] = ()
    network: str = ""
    heredocs: tuple[Heredoc, ...] = ()
    script: bool = False


class Copy(Instruction):
    """COPY and ADD. from_: a stage, an image, or empty for the context; heredocs: sources written in place."""

    sources: tuple[str, ...]
    target: str
    from_: str = ""
    chown: str = ""
    chmod: str = ""
    link: bool = False
    parents: bool = False
    exclude: tuple[str, ...] = ()
    heredocs: tuple[Heredoc, ...] = ()
    add: bool = False
    checksum: str = ""
    unpack: bool | None = None
    """ADD only: whether archives are unpacked; None: local ones are."""


class Cmd(Instruction):
    """The default command."""

    command: Command


class Entrypoint(Instruction):
    """What always runs."""

    command: Command


class Shell(Instruction):
    """What runs shell forms."""

    words: tuple[str, ...]


class Workdir(Instruction):
    """The working directory, made where it is missing."""

    path: str


class User(Instruction):
    """Who runs what follows."""

    user: str


class Expose(Instruction):
    """Ports, each `PORT[-PORT][/PROTOCOL]`."""

    ports: tuple[str, ...]


class Volume(Instruction):
    """Places that keep their files apart."""

    paths: tuple[str, ...]


class StopSignal(Instruction):
    """What asks the program to end."""

    signal: str


class Healthcheck(Instruction):
    """How to see that it is well; command None: NONE. Times are text such as `30s`."""

    command: Command | None
    options: tuple[tuple[str, str], ...] = ()


class Maintainer(Instruction):
    """The author of the image."""

    name: str


class OnBuild(Instruction):
    """An instruction for whoever builds on this image, as text."""

    trigger: str
