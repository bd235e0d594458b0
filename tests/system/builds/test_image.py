"""`corten.Image` built and run, on a base of busybox; and once on a real Debian, with packages."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import corten
from builds.conftest import BASE
from corten.build.bootstrap import PACKAGES
from corten.build.host_settings import host_settings
from corten.images.store.images import Store
from http_servers import HttpServer, Request
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


def wheel(directory: Path, name: str = "tiny") -> Path:
    """A package of one module, put together by hand."""
    directory.mkdir(exist_ok=True)
    about = f"{name}-1.0.dist-info"
    path = directory / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "ANSWER = 42\n")
        archive.writestr(f"{about}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{about}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{about}/RECORD", f"{name}.py,,\n{about}/METADATA,,\n{about}/WHEEL,,\n{about}/RECORD,,\n")
    return path


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


class Index:
    """A package index as PyPI is one, with every wheel of a directory. fetched: the wheels that were asked for."""

    def __init__(self, directory: Path) -> None:
        self.fetched: list[str] = []
        index = self

        class Handler(Request):
            def do_GET(self) -> None:  # noqa: N802
                name = self.path.strip("/").rpartition("/")[2]
                if self.path.startswith("/simple/"):
                    files = [path.name for path in directory.glob(f"{name}-*.whl")]
                    data = "".join(f'<a href="/files/{file}">{file}</a>' for file in files).encode()
                else:
                    index.fetched.append(name)
                    data = (directory / name).read_bytes()
                self.send_response(200 if data else 404)
                kind = "text/html" if self.path.startswith("/simple/") else "application/octet-stream"
                for key, value in (("Content-Type", kind), ("Cache-Control", "max-age=365000000, immutable, public"),
                                   ("ETag", '"x"'), ("Content-Length", str(len(data)))):  # fmt: skip
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(data)

        self.server = HttpServer(Handler)
        self.url = f"http://127.0.0.1:{self.server.port}/simple/"

    def close(self) -> None:
        self.server.close()


@pytest.fixture(scope="session")
def debian(home: Path) -> tuple[str, str]:
    """A Debian with Python, as root makes it and as an ordinary user does, at once; both digests."""
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
    return first.stdout.strip(), second.strip()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_same_packages_give_the_same_digest(home: Path, debian: tuple[str, str]) -> None:
    assert debian[0] == debian[1]
    found = Store(str(home)).find("debian:bookworm")
    assert found is not None
    assert found.digest == debian[0]
    assert "python3=3.11" in found.manifest.annotations[PACKAGES]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_python_packages(debian: tuple[str, str], tmp_path: Path) -> None:
    wheel(tmp_path / "wheels")
    image = corten.Image(debian[0]).pip_install(
        "tiny", find_links=f"{tmp_path}/wheels", extra_options="--no-index"
    )
    with pytest.raises(corten.BuildFailed, match="No matching distribution found for tiny"):
        image.build()  # the directory is not in the image
    wheel(tmp_path / "wheels", "other")
    (tmp_path / "requirements.txt").write_text("other==1.0\n")
    base = corten.Image(debian[0]).add_local_dir(tmp_path / "wheels", "/wheels", copy=True)
    image = base.pip_install("tiny", find_links="/wheels", extra_options="--no-index")
    result = corten.run(image, ["python", "-c", "import tiny, sys; print(tiny.ANSWER, sys.prefix)"])
    assert result.stdout == "42 /opt/venv\n", result.stderr

    wheel(tmp_path / "wheels", "third")
    project(tmp_path / "project", tmp_path / "wheels" / "tiny-1.0-py3-none-any.whl")
    options = "--no-index --find-links /wheels"
    base = corten.Image(debian[0]).add_local_dir(tmp_path / "wheels", "/wheels", copy=True)
    image = base.pip_install("third", extra_options=options)
    image = image.pip_install_from_requirements(tmp_path / "requirements.txt", extra_options=options)
    image = image.uv_sync(tmp_path / "project")
    # What earlier steps have installed is not taken away by uv.
    result = corten.run(image, ["python", "-c", "import tiny, other, third; print(tiny.__file__)"])
    assert result.stdout == "/opt/venv/lib/python3.11/site-packages/tiny.py\n", result.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_wheel_is_fetched_once(
    debian: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other images with the same package, above other steps and beside other packages, take it from the cache."""
    for name in [*os.environ]:
        if name.startswith("PIP_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    host_settings.cache_clear()
    unique = f"fresh{os.getpid()}"
    for name in (unique, "beside"):
        wheel(tmp_path / "wheels", name)
    index = Index(tmp_path / "wheels")

    def with_packages(image: corten.Image, *names: str) -> corten.Image:
        return image.pip_install(*names, index_url=index.url, extra_options="--trusted-host 127.0.0.1")

    try:
        base = corten.Image(debian[0])
        with_packages(base, unique).build()
        assert index.fetched == [f"{unique}-1.0-py3-none-any.whl"]
        with_packages(base.run("echo > /else"), unique, "beside").build()
        with_packages(base, unique).build(no_cache=True)
        assert index.fetched == [f"{name}-1.0-py3-none-any.whl" for name in (unique, "beside")]
    finally:
        index.close()
        host_settings.cache_clear()
