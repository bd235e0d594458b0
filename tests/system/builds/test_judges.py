"""What Corten builds, skopeo and umoci accept; and the same Containerfile built by buildah gives the same tree."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from builds.trees import Row, listing, ours
from corten.images.store.images import Image, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

TEXT = """\
FROM scratch
COPY busybox /bin/busybox
COPY passwd group /etc/
COPY d /new
COPY d /new2/
COPY d/f1 /file
COPY d/f1 /dirx/
COPY d/* /glob/
COPY dlink /dl
COPY --chown=www d /own1
COPY --chown=www:grp d/f1 /own2
COPY --chown=7 d/f1 /own3
COPY --chmod=4711 d /mod
RUN ["/bin/busybox", "mkdir", "-m", "700", "/exist"]
RUN ["/bin/busybox", "ln", "-s", "/exist", "/elink"]
RUN ["/bin/busybox", "ln", "-s", "/dangling/there", "/dlink"]
COPY d/e /exist
COPY d/f1 /elink/
COPY d/f1 /dlink/
ADD x.tgz /un
COPY x.tgz /
USER www
WORKDIR /wd/sub
COPY d/f1 rel
USER 0
RUN ["/bin/busybox", "rm", "-r", "/new2/e"]
RUN ["/bin/busybox", "sh", "-c", "/bin/busybox rm -r /new; /bin/busybox mkdir /new; echo > /new/only"]
"""

MORE = r"""
ARG VER=1
ARG BASE=scratch
FROM ${BASE} AS first
ARG VER
ARG OTHER=o${VER:-none}
COPY busybox /bin/busybox
COPY passwd group /etc/
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV A=1 B="two words" C=three\ x
ENV OLD form with spaces
ENV PATH=/opt/bin:$PATH D=${A:+set}${NONE:-unset}
RUN echo "v=$VER o=$OTHER a=$A b=$B c=$C d=$D" > /vars; \
    # a comment inside
    echo "$OLD" >> /vars
LABEL one=1 "two words"="x y" three='q $A'
EXPOSE 80 443/tcp 53/udp
VOLUME /data
STOPSIGNAL SIGQUIT
MAINTAINER me <me@example.org>
RUN mkdir -m 777 /scratch
ONBUILD RUN echo triggered > /scratch/trigger
ONBUILD COPY d/f1 /onbuild/
WORKDIR /w
USER 1000:1000
WORKDIR rel
CMD echo $A
ENTRYPOINT ["/bin/sh", "-c"]

FROM first AS second
ARG VER=local
SHELL ["/bin/sh", "-ec"]
USER 0
RUN echo "ver=$VER other=$OTHER" > /second
COPY . /all/
ADD x.tgz /un/
ADD x.tar.xz x.tar.bz2 /un2/
COPY --from=first /vars /fromfirst
COPY --chmod=750 --chown=5:6 d /s/
COPY d/f1 none* x.t* d/e/f? /many/
RUN --mount=type=bind,from=first,source=/etc,target=/mnt cat /mnt/passwd > /bound
CMD ["a", "b"]

FROM second
ARG HTTP_PROXY
RUN echo "$HTTP_PROXY" > /proxy
COPY --from=1 /second /third
"""
IGNORED = "**/*.log\n!keep.log\nd/e/*\n!d/e/f2\n# a comment\nContainerfile\n"

LITTER = ("/data", "/dev", "/proc", "/sys", "/run", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
"""Places of buildah's own mounts, which it leaves in the image."""


def fill(context: Path) -> None:
    d = context / "d"
    (d / "e").mkdir(parents=True)
    (d / "f1").write_text("1")
    (d / "e/f2").write_text("2")
    os.chown(d / "e/f2", 33, 33)
    (d / "l").symlink_to("f1")
    (d / "hard").hardlink_to(d / "f1")
    os.mkfifo(d / "pipe")
    os.setxattr(d / "f1", "user.a", b"b")
    (d / "f1").chmod(0o600)
    (d / "e").chmod(0o711)
    d.chmod(0o750)
    (context / "dlink").symlink_to("d")
    (context / "passwd").write_text("root:x:0:0::/:/bin/sh\nwww:x:33:44::/:/bin/sh\n")
    (context / "group").write_text("root:x:0:\ngrp:x:55:\n")
    for flag, name in (("z", "x.tgz"), ("J", "x.tar.xz"), ("j", "x.tar.bz2")):
        subprocess.run(["tar", f"c{flag}f", name, "d"], cwd=context, check=True)
    for name in ("keep.log", "d/drop.log", "d/e/drop"):
        (context / name).write_text(name)
    for path in sorted(context.rglob("*")):
        os.utime(path, (1_000_000_000, 1_000_000_000), follow_symlinks=False)


def layout(home: Path, image: Image, path: Path) -> Path:
    """An image of our store as an OCI layout, by hand: what is judged are its blobs."""
    blobs = Store(str(home)).blobs
    (path / "blobs/sha256").mkdir(parents=True)
    for digest in (image.digest, image.manifest.config.digest, *(layer.blob.digest for layer in image.layers)):
        shutil.copy(blobs.path(digest), path / "blobs/sha256" / digest.partition(":")[2])
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    descriptor = {
        "mediaType": image.manifest.media_type, "digest": image.digest, "size": image.size,
        "annotations": {"org.opencontainers.image.ref.name": "x"},
    }  # fmt: skip
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [descriptor]}))
    return path


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


def unpacked(path: Path, to: Path, times: bool = False) -> dict[str, Row]:
    run("umoci", "unpack", "--image", f"{path}:x", str(to))
    return listing(f"{to}/rootfs", times)


@pytest.mark.slow
@pytest.mark.parametrize(("text", "ignored"), [(TEXT, ""), (MORE, IGNORED)], ids=["copies", "instructions"])
def test_buildah_builds_the_same_tree(
    home: Path, context: Path, tmp_path: Path, command: Callable[..., subprocess.CompletedProcess[str]],
    text: str, ignored: str,
) -> None:  # fmt: skip
    fill(context)
    (context / "Containerfile").write_text(text)
    (context / ".dockerignore").write_text(ignored)
    words = ("--build-arg", "HTTP_PROXY=http://proxy.invalid")
    done = command("build", "--quiet", *words, str(context))
    assert done.returncode == 0, done.stderr
    image = Store(str(home)).find(done.stdout.strip())
    assert image is not None

    own = layout(home, image, tmp_path / "ours")
    run("skopeo", "inspect", f"oci:{own}:x")
    run("skopeo", "copy", "--quiet", f"oci:{own}:x", f"dir:{tmp_path}/copied")
    assert unpacked(own, tmp_path / "by-umoci", True) == ours(home, image, True)

    buildah = ("buildah", "--root", f"{tmp_path}/root", "--runroot", f"{tmp_path}/run", "--storage-driver", "vfs")
    more = ("--network", "host", "--quiet", "--format", "docker", "--tag", "x", *words)
    run(*buildah, "bud", "--isolation", "chroot", *more, str(context))
    run(*buildah, "push", "--quiet", "x", f"oci:{tmp_path}/theirs:x")
    theirs = unpacked(tmp_path / "theirs", tmp_path / "theirs-unpacked")
    mine = ours(home, image)
    assert {path: row for path, row in theirs.items() if not path.startswith(LITTER)} == mine
    whole = json.loads(run("skopeo", "inspect", "--config", f"oci:{tmp_path}/theirs:x"))
    assert image.config.raw.get("author") == whole.get("author") == ("me <me@example.org>" if text == MORE else None)
    inspected = whole["config"]
    inspected.get("Labels", {}).pop("io.buildah.version", None)
    inspected["Env"] = [one for one in inspected["Env"] if text == MORE or not one.startswith("PATH=")]
    kept = image.config.raw["config"]
    for name in ("Entrypoint", "Cmd", "User", "WorkingDir", "Labels", "ExposedPorts", "Volumes", "StopSignal"):
        assert (inspected.get(name) or None) == (kept.get(name) or None)
    assert sorted(inspected["Env"]) == sorted(kept.get("Env") or ())
