"""`corten build` and `corten.build`: from paths and words to a `Builder`."""

from __future__ import annotations

import os

from corten.build.builder import Builder, BuildOptions
from corten.build.parse import parse
from corten.build.progress import Progress
from corten.build.stages import PROXIES, needed, platform_args, read_stages
from corten.build.trees import Context
from corten.engine import home
from corten.errors import InvalidInput, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from corten.images.registry.watching import Watcher
    from corten.images.store.images import Image

_NAMES = ("Containerfile", "Dockerfile")


def build_directory(
    context: str, file: str, options: BuildOptions, output: int, watch: Callable[[], Watcher] | None = None
) -> Image:
    """Build a directory by its Containerfile.

    file: its path, `-` for standard input; empty: Containerfile or Dockerfile in the context; output: descriptor for
    what is said on the way, -1 for silence; watch: gives who is told how images are fetched.
    """
    path = file or _default(context)
    source, instructions = parse(_read(path), "standard input" if path == "-" else os.path.normpath(path))
    given = dict(options.build_args)
    stages = read_stages(source, instructions, given, platform_args(os.uname().machine))
    numbers = needed(stages, options.target)
    place = Context(context, path)
    try:
        progress = Progress(output, parallel=len(numbers) > 1)
        for name in unused(given, instructions):
            progress.say(f"warning: --build-arg {name}: no ARG takes it")
        return Builder(home.directory(), options, place, progress, watch).build(stages)
    finally:
        place.close()


def unused(given: dict[str, str], instructions: tuple[object, ...]) -> list[str]:
    """Build arguments that no ARG declares."""
    from corten.build.instructions import Arg

    declared = {name for one in instructions if isinstance(one, Arg) for name, _ in one.values}
    return [name for name in given if name not in declared and name.upper() not in PROXIES]


def _default(context: str) -> str:
    for name in _NAMES:
        path = os.path.join(context, name)
        if os.path.isfile(path):
            return path
    if not os.path.isdir(context):
        raise NotFound(f"build context {context}: no such directory")
    raise NotFound(f"build context {context}: has no Containerfile and no Dockerfile: name one with -f")


def _read(path: str) -> str:
    if path == "-":
        import sys

        return sys.stdin.read()
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        raise NotFound(f"{path}: no such file") from None
    except UnicodeDecodeError as error:
        raise InvalidInput(f"{path}: is not text (UTF-8): byte {error.start} is wrong") from None
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {os.strerror(error.errno or 0).lower()}") from None
