"""Base images without a registry: a minimal Debian (or kin) put together from its packages by mmdebstrap.

Rule 1: the same packages give the same digest, whoever does it. Programs that are configured meanwhile are told one
        time, always the same; and no file is newer than the newest that a package brought.
Rule 2: what depends on this machine and not on the packages is taken out: its name, its resolver, device nodes.
Rule 3: what went in is written in the image: each package with its version, in an annotation of the manifest.
"""

from __future__ import annotations

import os
import shutil
import threading
import time

from corten.errors import Error, InvalidInput, Unsupported, told_of
from corten.images import references
from corten.images.layers.commit import commit
from corten.images.manifests import own_platform
from corten.images.store import once
from corten.images.store.images import Image, Layer, Store
from corten.linux import idmap
from corten.records import Record
from corten.runtime import helper

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corten.images.references import Reference
    from corten.runtime.helper import Maps

PACKAGES = "io.corten.bootstrap.packages"
"""The annotation with `name=version` of all that is installed, sorted, separated by spaces."""

VARIANTS = ("essential", "apt", "minbase", "buildd", "standard")


class Bootstrap(Record):
    """What to put together. name: `debian:bookworm`; mirrors: addresses or lines of sources.list, none: the default."""

    name: Reference
    packages: tuple[str, ...] = ()
    variant: str = "minbase"
    mirrors: tuple[str, ...] = ()
    components: str = "main"

    @property
    def suite(self) -> str:
        """`bookworm`, `trixie`, `stable`, …"""
        return self.name.tag


def request(
    name: str, packages: Sequence[str] = (), variant: str = "minbase", mirrors: Sequence[str] = ()
) -> Bootstrap:
    """A request that has been looked at. InvalidInput: a word of it cannot be right."""
    reference = references.parse(name)
    if not reference.tag or reference.tag == "latest" or reference.digest:
        raise InvalidInput(f"bootstrap of {name!r}: says no release: write NAME:RELEASE, such as debian:bookworm")
    if variant not in VARIANTS:
        raise InvalidInput(f"--variant: {variant!r}: use {', '.join(VARIANTS)}")
    words = [word for item in packages for word in item.replace(",", " ").split()]
    for word in words:
        if not all(c.isalnum() or c in "+-.:=~_/" for c in word) or not word[0].isalnum():
            raise InvalidInput(f"--packages: {word!r} is no name of a package")
    return Bootstrap(reference, tuple(sorted(set(words))), variant, tuple(mirrors))


def bootstrap(home: str, wanted: Bootstrap, say: Callable[[str], None]) -> Image:
    """Put it together and keep it under its name. say: hears what mmdebstrap says, a line each.

    Unsupported: mmdebstrap is missing, or this user has no range of ids for the files of an image; Error: it failed,
    and its own words.
    """
    program = shutil.which("mmdebstrap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/bin")
    if program is None:
        raise Unsupported(f"bootstrap of {wanted.name.short}: needs mmdebstrap: apt-get install mmdebstrap")
    maps = helper.own_maps()
    if maps is None and os.geteuid() != 0:
        why = idmap.subordinate_problem(os.geteuid())
        raise Unsupported(f"bootstrap of {wanted.name.short}: needs more ids than one: {why}")
    store = Store(home)
    found: list[Image] = []

    def fill(work: str) -> None:
        root = f"{os.path.abspath(work)}/root"
        os.mkdir(f"{work}/tmp")
        newest, installed = _filled(_words(program, wanted, root), root, say, wanted, maps)
        found.append(_image(store, wanted, commit(store, root, epoch=newest), newest, installed))

    # Like a step of a build, in a directory that is swept if this is killed.
    name = f"bootstrap-{os.urandom(8).hex()}"
    with store.using():
        once.make(f"{home}/build/steps", name, fill, f"a root for {wanted.name.short}", 0o700)
        once.remove(f"{home}/build/steps", name)
    return found[0]


def _words(program: str, wanted: Bootstrap, root: str) -> tuple[str, ...]:
    # Root of a user namespace is root enough, but for /sys, which so nobody gets.
    words = [program, "--mode=root", "--format=directory", "--skip=chroot/mount/sys",
             f"--variant={wanted.variant}", f"--components={wanted.components}"]  # fmt: skip
    if wanted.packages:
        words.append(f"--include={','.join(wanted.packages)}")
    return (*words, wanted.suite, root, *wanted.mirrors)


def _filled(
    words: tuple[str, ...], root: str, say: Callable[[str], None], wanted: Bootstrap, maps: Maps | None
) -> tuple[int, str]:
    """What `bootstrap_root.fill` gives, in a helper; meanwhile `say` hears each line, in a thread."""
    reading, writing = os.pipe2(os.O_CLOEXEC)

    def listen() -> None:
        with open(reading, "rb") as lines:
            for line in lines:
                say(line.decode(errors="replace").rstrip())

    listener = threading.Thread(target=listen, name="corten-bootstrap")
    listener.start()
    try:
        # What mmdebstrap keeps for a while goes with the draft, even if it is killed.
        environment = {**os.environ, "TMPDIR": f"{os.path.dirname(root)}/tmp"}
        arguments = (words, environment, root)
        newest, installed = helper.call("corten.build.bootstrap_root:fill", arguments, (writing,), maps, mounts=True)
    except Error as error:
        raise told_of(f"bootstrap of {wanted.name.short}", error) from None
    finally:
        os.close(writing)
        listener.join()
    return newest, installed


def _image(store: Store, wanted: Bootstrap, layer: Layer, newest: int, installed: str) -> Image:
    own = own_platform()
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(newest))
    words = f"corten image bootstrap {wanted.name.short}"
    words += f" --variant {wanted.variant}" if wanted.variant != "minbase" else ""
    words += f" --packages {','.join(wanted.packages)}" if wanted.packages else ""
    config = {
        "created": created,
        "architecture": own.architecture,
        "os": own.os,
        **({"variant": own.variant} if own.variant else {}),
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["bash"]},
        "history": [{"created": created, "created_by": words}],
    }
    return store.make_image(config, [layer], [wanted.name], {PACKAGES: installed})
