"""Base images without a registry: a minimal Debian (or kin) put together from its packages by mmdebstrap.

Rule 1: the same packages give the same digest. Programs that are configured meanwhile are told one time, always the
        same; and no file is newer than the newest that a package brought.
Rule 2: what depends on this machine and not on the packages is taken out: its name, its resolver, device nodes.
Rule 3: what went in is written in the image: each package with its version, in an annotation of the manifest.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time

from corten.errors import Error, InvalidInput, Unsupported
from corten.images import references
from corten.images.layers.commit import commit
from corten.images.manifests import own_platform
from corten.images.store import once
from corten.images.store.images import Image, Layer, Store
from corten.records import Record
from corten.runtime.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from corten.images.references import Reference

PACKAGES = "io.corten.bootstrap.packages"
"""The annotation with `name=version` of all that is installed, sorted, separated by spaces."""

VARIANTS = ("essential", "apt", "minbase", "buildd", "standard")
_CONFIGURED_AT = 315532800
"""1980: the earliest time that all formats can hold. Unix time, s."""
_OF_THIS_MACHINE = ("etc/hostname", "etc/resolv.conf", "etc/machine-id", "var/lib/dbus/machine-id",
                    "var/cache/ldconfig/aux-cache", "var/log/bootstrap.log", "var/log/apt/eipp.log.xz")  # fmt: skip


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

    Unsupported: mmdebstrap is missing, or this is not root; Error: it failed, and its own last words.
    """
    program = shutil.which("mmdebstrap", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/bin")
    if program is None:
        raise Unsupported(f"bootstrap of {wanted.name.short}: needs mmdebstrap: apt-get install mmdebstrap")
    if os.geteuid() != 0:
        raise Unsupported(f"bootstrap of {wanted.name.short}: needs root, whose files the image's are")
    store = Store(home)
    found: list[Image] = []

    def fill(work: str) -> None:
        root = f"{work}/root"
        began = int(time.time())
        _run(program, wanted, root, say)
        newest = _tidy(root, began)
        installed = _installed(root)
        found.append(_image(store, wanted, commit(store, root, epoch=newest), newest, installed))

    # Like a step of a build, in a directory that is swept if this is killed.
    name = f"bootstrap-{os.urandom(8).hex()}"
    with store.using():
        once.make(f"{home}/build/steps", name, fill, f"a root for {wanted.name.short}", 0o700)
        once.remove(f"{home}/build/steps", name)
    return found[0]


def _run(program: str, wanted: Bootstrap, root: str, say: Callable[[str], None]) -> None:
    words = [program, "--mode=root", "--format=directory", f"--variant={wanted.variant}",
             f"--components={wanted.components}"]  # fmt: skip
    if wanted.packages:
        words.append(f"--include={','.join(wanted.packages)}")
    words += [wanted.suite, root, *wanted.mirrors]
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(_CONFIGURED_AT), "LC_ALL": "C.UTF-8"}
    last: list[str] = []
    with subprocess.Popen(
        words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                say(line)
                if line.startswith("E: ") and "failed to run" not in line:
                    last.append(line[3:])
            code = process.wait()
        except BaseException:
            process.terminate()
            raise
    if code:
        why = last[0] if last else f"mmdebstrap ended with {code}"
        raise Error(f"bootstrap of {wanted.name.short}: {why}")


def _tidy(root: str, began: int) -> int:
    """Take out what is of this machine; the time of the newest file that came from a package, in Unix seconds."""
    for name in _OF_THIS_MACHINE:
        try:
            os.unlink(f"{root}/{name}")
        except FileNotFoundError:
            continue
    remove_tree(f"{root}/dev")
    os.mkdir(f"{root}/dev", 0o755)
    newest = _CONFIGURED_AT
    for top, directories, files in os.walk(root):
        for name in (*directories, *files):
            seconds = int(os.lstat(os.path.join(top, name)).st_mtime)
            if newest < seconds < began:
                newest = seconds
    return newest


def _installed(root: str) -> str:
    found = []
    with open(f"{root}/var/lib/dpkg/status", encoding="utf-8", errors="replace") as file:
        for block in file.read().split("\n\n"):
            fields = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line and line[0] != " ")
            if fields.get("Status", "").endswith(" installed"):
                found.append(f"{fields['Package']}={fields['Version']}")
    return " ".join(sorted(found))


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
