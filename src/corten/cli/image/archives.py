"""`corten image save`, `load`, `import` and `corten export`: images in files."""

from __future__ import annotations

import os
import sys

from corten.cli.image.transfer import tell_owners
from corten.cli.parser import Command, Group, Option, UsageError, parse
from corten.errors import Error, errno_words

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from corten.images.store.images import Store

FORMATS = ("oci-archive", "docker-archive", "oci-dir")
_OUTPUT = Option(("-o", "--output"), "FILE", "Write to this instead of standard output")
SAVE = Command(
    "corten image save", "[OPTIONS] IMAGE...",
    "Write images to an archive that is both an OCI layout and what 'docker load' reads.",
    (
        Group(
            "Options",
            (
                _OUTPUT,
                Option(("--format",), "FORMAT", "oci-archive, docker-archive (one file is both), or oci-dir"),
            ),
        ),
    ),
    minimum=1, missing="image save: needs an IMAGE", interspersed=True,
)  # fmt: skip
LOAD = Command(
    "corten image load", "[OPTIONS] [FILE]",
    "Read images from what 'save' of corten, docker or podman wrote, or from an OCI layout in an archive or directory.",
    (
        Group(
            "Options",
            (
                Option(("-i", "--input"), "FILE", "The archive or directory; default standard input"),
                Option(("--platform",), "OS/ARCH", "Which platform, if there are several"),
                Option(("-q", "--quiet"), help="Print only digests"),
            ),
        ),
    ),
    maximum=1, interspersed=True,
)  # fmt: skip
IMPORT = Command(
    "corten image import", "[OPTIONS] FILE|- [NAME]",
    "Make an image of one layer of a root file system in a tar archive (plain, gzip or zstd). Prints its digest.",
    (
        Group(
            "Options",
            (
                Option(("-c", "--change"), "INSTRUCTION", "CMD, ENTRYPOINT, ENV, USER, WORKDIR, LABEL, VOLUME, EXPOSE "
                       "or STOPSIGNAL, as in a Containerfile", repeat=True),
                Option(("-m", "--message"), "TEXT", "What 'history' shows"),
            ),
        ),
    ),
    minimum=1, maximum=2, missing="image import: needs a FILE, or '-' for standard input", interspersed=True,
)  # fmt: skip
EXPORT = Command(
    "corten image export", "[OPTIONS] IMAGE",
    "Write the root file system of an image, all layers together, to a tar archive. (Docker's takes a container; here "
    "what a container wrote goes with it, or is in the directory of --writable.)",
    (Group("Options", (_OUTPUT,)),),
    minimum=1, maximum=1, missing="image export: needs an IMAGE", interspersed=True,
)  # fmt: skip


def _store() -> Store:
    from corten.engine.home import directory
    from corten.images.store.images import Store

    return Store(directory())


def save(words: Sequence[str]) -> int:
    """Save; 0."""
    values, arguments = parse(SAVE, words)
    form, output = values.get("format", FORMATS[0]), values.get("output", "")
    if form not in FORMATS:
        raise UsageError(f"image save: --format {form!r} is none of {', '.join(FORMATS)}")
    from corten.images.archives import saving

    store = _store()
    images = saving.chosen(store, arguments)
    if form == "oci-dir":
        if not output:
            raise UsageError("image save: --format oci-dir needs --output DIRECTORY")
        saving.save_layout(store, images, output)
        return 0
    _write("image save", output, lambda fd: saving.save(store, images, fd))
    return 0


def _write(what: str, output: str, write: Callable[[int], None]) -> None:
    """Have something written to a file, of which nothing stays if it fails, or to a device, a pipe, standard output."""
    if not output:
        if os.isatty(1):
            raise UsageError(f"{what}: an archive is not for a terminal: give --output FILE")
        _written(what, "standard output", lambda: write(1))
        return
    draft, flags = f"{output}.{os.getpid()}.part", os.O_CREAT | os.O_EXCL
    if os.path.exists(output) and not os.path.isfile(output):  # /dev/null must stay what it is
        draft, flags = "", 0
    try:
        fd = os.open(draft or output, os.O_WRONLY | flags | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise Error(f"{what}: {output}: {errno_words(error.errno or 0)}") from None
    except ValueError:
        raise UsageError(f"{what}: {output!r} is not a path") from None
    try:
        _written(what, output, lambda: write(fd))
        if draft:
            # What a link names is replaced, not the link.
            _written(what, output, lambda: os.rename(draft, os.path.realpath(output)))
    except BaseException:
        if draft:
            os.unlink(draft)
        raise
    finally:
        os.close(fd)


def _written(what: str, where: str, write: Callable[[], None]) -> None:
    try:
        write()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise Error(f"{what}: {where}: {errno_words(error.errno or 0)}") from None


def load(words: Sequence[str]) -> int:
    """Load; 0."""
    values, arguments = parse(LOAD, words)
    source: str | int = values.get("input") or (arguments[0] if arguments else 0)
    if source == 0 and os.isatty(0):
        raise UsageError("image load: an archive does not come from a terminal: give --input FILE")
    from corten.images.archives.loading import load as read

    store = _store()
    for image in read(store, 0 if source == "-" else source, values.get("platform", "")):
        tell_owners(store, image.manifest.config.digest, (*image.names, image.digest)[0])
        for name in () if values.get("quiet") else image.names:
            sys.stdout.write(f"loaded {name}\n")
        if values.get("quiet") or not image.names:
            sys.stdout.write(f"{image.digest}\n")
    return 0


def import_(words: Sequence[str]) -> int:
    """Import; 0."""
    values, arguments = parse(IMPORT, words)
    from corten.images.archives.changes import changed
    from corten.images.archives.root_archives import import_root

    store = _store()
    tag = store.reference(arguments[1]) if len(arguments) > 1 else None
    config: dict[str, Any] = {}
    for text in values.get("change", []):
        config = changed(config, text)
    source: str | int = 0 if arguments[0] == "-" else arguments[0]
    image = import_root(store, source, tag, config, values.get("message", ""))
    tell_owners(store, image.manifest.config.digest, (*image.names, image.digest)[0])
    sys.stdout.write(f"{image.digest}\n")
    return 0


def export(words: Sequence[str]) -> int:
    """Export; 0."""
    values, arguments = parse(EXPORT, words)
    from corten.cli.image.listing import found_image
    from corten.images.archives.root_archives import export_root

    store = _store()
    image = found_image(store, arguments[0])
    _write("image export", values.get("output", ""), lambda fd: export_root(store, image, fd))
    return 0
