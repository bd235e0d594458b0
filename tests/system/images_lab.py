"""Registries on loopback, images to send there, and listings of trees to compare."""

from __future__ import annotations

import ctypes
import ctypes.util
import json
import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

import small_root
from corten.images.layers.commit import commit
from corten.images.references import parse
from corten.images.store.images import Image, Store

USER, PASSWORD = "ann", "s3cret"
NAMED = "registry.invalid"
"""A name in the servers' certificates that no name server knows: only a proxy leads there."""


class Server:
    """Debian's docker-registry on a port of this machine. log: the file with what it was asked.

    auth: it wants USER and PASSWORD; tls: with a certificate of an own authority; clients: it wants one of them.
    """

    def __init__(self, directory: Path, *, auth: bool = False, tls: bool = False, clients: bool = False) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.host, self.directory, self.ca = f"localhost:{port}", directory, directory / "ca.crt"
        http: dict[str, object] = {"addr": f"127.0.0.1:{port}"}
        config: dict[str, object] = {"version": "0.1", "http": http}
        config["storage"] = {"filesystem": {"rootdirectory": f"{directory}/data"}}
        if tls:
            certificates(directory)
            tls_words = {"certificate": f"{directory}/own.crt", "key": f"{directory}/own.key"}
            http["tls"] = {**tls_words, **({"clientcas": [f"{directory}/ca.crt"]} if clients else {})}
        if auth:
            (directory / "users").write_text(f"{USER}:{bcrypt(PASSWORD)}\n")
            config["auth"] = {"htpasswd": {"realm": "test", "path": f"{directory}/users"}}
        (directory / "config.yml").write_text(json.dumps(config))  # which is YAML, too
        self.log = directory / "log"
        with self.log.open("wb") as log:
            words = ["docker-registry", "serve", str(directory / "config.yml")]
            # Without REGISTRY_AUTH_FILE, which podman's tools read: to the registry it is a setting.
            own = {"PATH": os.environ["PATH"]}
            self.process = subprocess.Popen(words, stdout=log, stderr=subprocess.PIPE, text=True, env=own)
        assert self.process.stderr is not None
        said = []
        for line in self.process.stderr:
            said.append(line)
            if "listening on" in line:
                break
        else:
            self.process.wait()
            self.process.stderr.close()
            pytest.fail(f"docker-registry does not start: {said}", pytrace=False)
        # What it says from here on is not read: a full pipe would stop it.
        self.drain = subprocess.Popen(["cat"], stdin=self.process.stderr, stdout=subprocess.DEVNULL)
        self.process.stderr.close()

    def asked(self, method: str, part: str) -> int:
        """How many requests there were with this method and a path with this in it."""
        return sum(f'"{method} ' in line and part in line for line in self.log.read_text().splitlines())

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.drain.wait()


def bcrypt(password: str) -> str:
    """What htpasswd would write. The C library knows it; Python does not any more."""
    library = ctypes.CDLL(ctypes.util.find_library("crypt"))
    library.crypt.restype = ctypes.c_char_p
    found: bytes = library.crypt(password.encode(), b"$2b$04$abcdefghijklmnopqrstuu")
    assert found.startswith(b"$2b$")
    return found.decode()


def certificates(directory: Path) -> None:
    """An authority of our own, and a certificate of it for localhost and NAMED; it does for clients, too."""
    key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
    authority = f"openssl req -x509 {key} -keyout ca.key -out ca.crt -days 2"
    own = f"openssl req {key} -keyout own.key -out own.csr -subj /CN=localhost"
    sign = "openssl x509 -req -in own.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out own.crt -days 2 -extfile names"
    (directory / "names").write_text(f"subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:{NAMED}\n")
    for line in (f"{authority} -subj /CN=corten-tests", own, sign):
        subprocess.run(line.split(), cwd=directory, check=True, capture_output=True)


def image(store: Store, name: str, layers: int = 2, **config: object) -> Image:
    """An image with busybox, and a file in each layer."""
    upper = Path(store.directory) / "upper"
    with store.using():
        made = []
        for number in range(layers):
            if number == 0:
                small_root.make(upper)
                (upper / "etc").mkdir(exist_ok=True)
            else:
                (upper / "etc").mkdir(parents=True)
            (upper / f"etc/layer{number}").write_text(f"{name} {number}")
            made.append(commit(store, str(upper)))
        raw = {"os": "linux", "architecture": "amd64", "config": {"Cmd": ["sh"], **config}}
        return store.make_image(raw, made, [parse(name)])


def run(*words: str | Path, **options: object) -> str:
    """What another program prints; it must end well."""
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    assert done.returncode == 0, (words, done.stdout, done.stderr)
    return str(done.stdout)


def skopeo(*words: str | Path) -> str:
    return run("skopeo", "--insecure-policy", *words)


def unpacked_by_umoci(layout: Path, tag: str, where: Path) -> Path:
    """The root file system of an image in an OCI layout, as umoci unpacks it."""
    shutil.rmtree(where, ignore_errors=True)
    run("umoci", "unpack", "--image", f"{layout}:{tag}", where)
    return where / "rootfs"
