"""`corten.Image` built and run, on a base of busybox; and once on a real Debian, with packages."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import corten
from builds.conftest import BASE
from corten.build.bootstrap import PACKAGES
from corten.images.store.images import Store
from ordinary_user import User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture
def base(context: Path, command: Callable[..., subprocess.CompletedProcess[str]]) -> corten.Image:
    (context / "Containerfile").write_text(BASE)
    done = command("build", "-q", "-t", "tests/busybox:1", str(context))
    assert done.returncode == 0, done.stderr
    return corten.Image("tests/busybox:1")


def test_steps_and_local_files(base: corten.Image, tmp_path: Path) -> None:
    (tmp_path / "app/skipped").mkdir(parents=True)
    (tmp_path / "app/f").write_text("one")
    image = (
        base.run("echo $A > /a", env={"A": "1 2"})
        .env(B="$x 'y'")
        .workdir("/w")
        .add_local_dir(tmp_path / "app", "/copied", copy=True, ignore=["skipped"])
        .add_local_dir(tmp_path / "app", "/shown")
        .cmd(["sh", "-c", 'cat /a; echo "$B"; pwd; ls /copied'])
    )
    digest = image.build()
    assert corten.run(image).stdout == "1 2\n$x 'y'\n/w\nf\n"
    (tmp_path / "app/f").write_text("two")
    shown = corten.run(image, ["sh", "-c", "cat /shown/f /copied/f; echo x > /shown/f"])
    assert (shown.stdout, shown.exit_code) == ("twotwo", 1)
    assert image.build() != digest
    (tmp_path / "app/f").write_text("one")
    assert image.build() == digest


def test_a_step_that_fails_says_what_it_printed(base: corten.Image) -> None:
    with pytest.raises(corten.BuildFailed) as caught:
        base.run("true", "echo first; echo last words; exit 3").build()
    assert str(caught.value) == (
        "Image:2: RUN: echo first; echo last words; exit 3: exited with code 3: last words"
    )
    assert caught.value.output == "first\nlast words\n"


def test_a_containerfile_as_base(base: corten.Image, context: Path) -> None:
    (context / "Containerfile").write_text("FROM tests/busybox:1\nARG A\nENV A=$A\n")
    image = corten.Image.from_containerfile(context, build_args={"A": "given"}).run("echo $A > /a")
    assert corten.run(image, ["cat", "/a"]).stdout == "given\n"


WHEEL = "tiny-1.0-py3-none-any.whl"


def wheel(directory: Path) -> None:
    """A package of one module, put together by hand."""
    directory.mkdir()
    about = "tiny-1.0.dist-info"
    with zipfile.ZipFile(directory / WHEEL, "w") as archive:
        archive.writestr("tiny.py", "ANSWER = 42\n")
        archive.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", f"tiny.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")


LOCK = """\
version = 1
requires-python = ">=3.9"

[[package]]
name = "project"
version = "0"
source = { virtual = "." }
dependencies = [{ name = "tiny" }]

[package.metadata]
requires-dist = [{ name = "tiny" }]

[[package]]
name = "tiny"
version = "1.0"
source = { registry = "/wheels" }
"""


def project(directory: Path, wheel: Path) -> None:
    """A project that needs the package of one module, locked."""
    directory.mkdir()
    (directory / "pyproject.toml").write_text(
        '[project]\nname = "project"\nversion = "0"\nrequires-python = ">=3.9"\ndependencies = ["tiny"]\n'
    )
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    (directory / "uv.lock").write_text(f'{LOCK}wheels = [{{ path = "{wheel.name}", hash = "sha256:{digest}" }}]\n')


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_debian_and_python_packages(home: Path, tmp_path: Path) -> None:
    """The same packages give the same digest, to root and to an ordinary user at once; then pip and uv on top of it."""
    words = ["image", "bootstrap", "-q", "--packages", "python3", "debian:bookworm"]
    user = User()
    try:
        own = user.with_ranges().corten_words(*words)
        other = subprocess.Popen(own, stdout=subprocess.PIPE, text=True, cwd=user.home)
        corten_itself = f"{Path(sys.executable).parent}/corten"
        first = subprocess.run([corten_itself, *words], stdout=subprocess.PIPE, text=True, check=False)
        second, _ = other.communicate()
    finally:
        user.close()
    assert (first.returncode, other.returncode) == (0, 0)
    assert first.stdout == second
    found = Store(str(home)).find("debian:bookworm")
    assert found is not None
    assert found.digest == second.strip()
    assert "python3=3.11" in found.manifest.annotations[PACKAGES]

    wheel(tmp_path / "wheels")
    image = corten.Image("debian:bookworm").pip_install(
        "tiny", find_links=f"{tmp_path}/wheels", extra_options="--no-index"
    )
    with pytest.raises(corten.BuildFailed, match="No matching distribution found for tiny"):
        image.build()  # the directory is not in the image
    image = (
        corten.Image("debian:bookworm")
        .add_local_dir(tmp_path / "wheels", "/wheels", copy=True)
        .pip_install("tiny", find_links="/wheels", extra_options="--no-index")
    )
    result = corten.run(image, ["python", "-c", "import tiny, sys; print(tiny.ANSWER, sys.prefix)"])
    assert result.stdout == "42 /opt/venv\n", result.stderr

    project(tmp_path / "project", tmp_path / "wheels" / WHEEL)
    image = corten.Image("debian:bookworm").add_local_dir(tmp_path / "wheels", "/wheels", copy=True)
    result = corten.run(image.uv_sync(tmp_path / "project"), ["python", "-c", "import tiny; print(tiny.__file__)"])
    assert result.stdout == "/opt/venv/lib/python3.11/site-packages/tiny.py\n", result.stderr
