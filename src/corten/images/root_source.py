"""What a root file system is made of, as data."""

from __future__ import annotations

from corten.records import Record


class Bind(Record):
    """A directory or file of the host to show at `target`; with `recursive`, what is mounted below it too."""

    source: str
    target: str
    read_only: bool = True
    recursive: bool = True


class Layer(Record):
    """An overlay of its own at `target`, with its own writable part; `lowers` are directories, topmost first."""

    target: str
    lowers: tuple[str, ...]
    read_only: bool = False


class RootSource(Record):
    """What a root file system is made of, in the order of mounting: overlay of `lowers`, then `layers`, then `binds`.

    lowers: directories, topmost first; env: variables that the image sets (never changed after it was made);
    workdir: where the program starts, an absolute path. What an image says besides, for those who do not say otherwise:
    entrypoint and cmd, the user as text, volumes (directories that can always be written to), the signal that asks it
    to end. holds: directories to lock, shared, while this is in use: then nobody removes them. foreign: that the image
    is for another machine, in words.
    """

    lowers: tuple[str, ...]
    binds: tuple[Bind, ...] = ()
    env: dict[str, str] = {}
    workdir: str = "/"
    layers: tuple[Layer, ...] = ()
    entrypoint: tuple[str, ...] = ()
    cmd: tuple[str, ...] = ()
    user: str = ""
    volumes: tuple[str, ...] = ()
    stop_signal: str = ""
    holds: tuple[str, ...] = ()
    foreign: str = ""
