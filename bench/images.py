"""Images: `corten pull` beside `podman pull`, and a start from ten layers beside one from a directory.

The image that is pulled has four layers of real Python packages, those of the environment that this runs in.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from contest import Contestant, Missing, Timed, Times, contest

from corten.images.layers.commit import commit
from corten.images.references import parse
from corten.images.store.images import Store

CORTEN, PODMAN = "corten pull", "podman pull"
LAYERS, DIRECTORY = "corten run, ten layers", "corten run, --rootfs"
PROGRAM = os.path.join(os.path.dirname(sys.executable), "corten")

_MOST = 300 << 20
"""Bytes of packages, unpacked."""


@contextmanager
def _registry(directory: str) -> Iterator[str]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"localhost:{free.getsockname()[1]}"
    with open(f"{directory}/registry.yml", "w") as config:
        config.write(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {directory}/registry}}}}\n")
        config.write(f"http: {{addr: '127.0.0.1:{host[10:]}'}}\nlog: {{accesslog: {{disabled: true}}}}\n")
    words = ["docker-registry", "serve", f"{directory}/registry.yml"]
    try:
        server = subprocess.Popen(words, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    except FileNotFoundError:
        raise Missing("docker-registry is not installed") from None
    assert server.stderr is not None
    try:
        for line in server.stderr:
            if "listening on" in line:
                break
        yield host
    finally:
        server.terminate()
        server.wait()
        server.stderr.close()


def _packages(store: Store, name: str) -> int:
    """An image of this environment's packages in four layers; its size, unpacked."""
    place = sysconfig.get_path("purelib")
    sizes = {one: _size(f"{place}/{one}") for one in os.listdir(place) if os.path.isdir(f"{place}/{one}")}
    layers: list[list[str]] = [[], [], [], []]
    taken = 0
    for one in sorted(sizes, key=lambda one: -sizes[one]):
        if taken + sizes[one] > _MOST:
            continue
        taken += sizes[one]
        min(layers, key=lambda layer: sum(map(sizes.__getitem__, layer))).append(one)
    upper = f"{store.directory}/upper"
    with store.using():
        made = []
        for names in layers:
            for one in names:
                shutil.copytree(f"{place}/{one}", f"{upper}/packages/{one}", symlinks=True)
            made.append(commit(store, upper))
        store.make_image({"os": "linux", "architecture": "amd64"}, made, [parse(name)])
    return taken


def _size(path: str) -> int:
    return sum(os.lstat(f"{top}/{name}").st_size for top, _, names in os.walk(path) for name in names)


def _remove(place: str) -> None:
    """Remove a store; podman leaves a mount in its own."""
    subprocess.run(["umount", "-q", f"{place}/overlay"], check=False, stderr=subprocess.DEVNULL)
    shutil.rmtree(place, ignore_errors=True)


def pulls(rounds: int) -> tuple[Times, dict[str, str], dict[str, str]]:
    """Milliseconds into an empty store, in turns; why one could not take part; what was pulled."""
    directory = tempfile.mkdtemp(prefix="corten-bench-images-", dir="/var/tmp")
    own, theirs = f"{directory}/own", f"{directory}/theirs"
    try:
        with _registry(directory) as host:
            name = f"{host}/packages"
            size = _packages(Store(f"{directory}/made"), name)
            made = {**os.environ, "CORTEN_HOME": f"{directory}/made"}
            subprocess.run([PROGRAM, "push", "-q", name], env=made, check=True, stdout=subprocess.DEVNULL)

            def empty(place: str) -> Callable[[], None]:
                def remove() -> None:
                    _remove(place)
                    os.sync()  # so that nobody waits for the writes of others

                return remove

            podman = ["podman", "--root", theirs, "--runroot", f"{directory}/run", "--storage-driver", "overlay",
                      "pull", "-q", "--tls-verify=false", name]  # fmt: skip
            contestants: list[Contestant] = [
                Timed(CORTEN, [PROGRAM, "pull", "-q", name], {**os.environ, "CORTEN_HOME": own}, empty(own)),
                Timed(PODMAN, podman, dict(os.environ), empty(theirs)),
            ]
            times, missing = contest(contestants, rounds)
            return times, missing, {"the image": f"{size >> 20} MiB in 4 layers"}
    except Missing as error:
        return {}, {CORTEN: str(error)}, {}
    finally:
        _remove(theirs)
        shutil.rmtree(directory)


def starts(root: str, rounds: int) -> tuple[Times, dict[str, str]]:
    """Milliseconds of `true` from an image of ten layers, and from the directory `root`, which the lowest is like."""
    home = tempfile.mkdtemp(prefix="corten-bench-layers-", dir="/var/tmp")
    try:
        store, upper = Store(home), f"{home}/upper"
        with store.using():
            shutil.copytree(root, upper, symlinks=True)
            layers = [commit(store, upper)]
            for number in range(9):
                os.makedirs(f"{upper}/etc")
                with open(f"{upper}/etc/layer{number}", "w") as file:
                    file.write(str(number))
                layers.append(commit(store, upper))
            store.make_image({"os": "linux", "architecture": "amd64"}, layers, [parse("ten")])
        environment = {**os.environ, "CORTEN_HOME": home}
        return contest(
            [
                Timed(LAYERS, [PROGRAM, "run", "ten", "true"], environment),
                Timed(DIRECTORY, [PROGRAM, "run", "--rootfs", root, "--writable", "throwaway", "true"], environment),
            ],
            rounds,
        )
    finally:
        shutil.rmtree(home)
