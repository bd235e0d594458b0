"""`corten.Image`: an environment as a chain of steps, for Python programs.

    image = corten.Image("debian:bookworm").apt_install("git").pip_install("numpy==2.*").add_local_dir("src", "/app")
    corten.run(image, ["python", "/app/train.py"], memory="2g")

Rule 1: an Image never changes; each method gives another one, with one more step.
Rule 2: a step is an instruction like those of a Containerfile (`instructions.py`), for the same builder and cache.
Rule 3: local files are shown to the container when it starts, read-only, unless `copy=True` puts them in the image.
"""

from __future__ import annotations

import os
import re
import shlex

from corten.build import instructions as i
from corten.build.builder import Builder, BuildOptions
from corten.build.host_settings import PIP, host_settings
from corten.build.instructions import Command, Instruction, RunMount
from corten.build.progress import Progress
from corten.build.stages import Containerfile, Stage
from corten.build.trees import Context
from corten.engine import home
from corten.engine.mounts import MountOption
from corten.errors import InvalidInput, NotFound
from corten.images.store.images import Store
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from os import PathLike
    from typing import Any

    Path = str | PathLike[str]

VENV = "/opt/venv"
"""Where Python packages go: an environment that sees the image's own packages, too."""
_TOOLS = "/run/corten/tools"
_UV = f"{_TOOLS}/bin/uv"


class Image(Record):
    """An image to be built. base: a reference, `scratch`, or the digest of an image in the store.

    steps: instructions, their lines numbered from 1; contexts: directories that steps copy from, by name; mounts: what
    is shown when it starts; containerfile: (context, file, arguments, target) that make the base, or ().
    """

    base: str
    steps: tuple[Instruction, ...] = ()
    contexts: tuple[tuple[str, str, tuple[str, ...]], ...] = ()
    mounts: tuple[MountOption, ...] = ()
    containerfile: tuple[Any, ...] = ()
    python: bool = False
    """The environment for packages is there."""

    @classmethod
    def from_containerfile(
        cls, context: Path = ".", file: Path = "", build_args: Mapping[str, str] | None = None, target: str = ""
    ) -> Image:
        """What a Containerfile makes of a directory, as `corten build`."""
        where = os.path.abspath(context)
        path = os.path.abspath(file) if file else ""
        return cls("", containerfile=(where, path, tuple((build_args or {}).items()), target))

    # --- steps

    def run(self, *commands: str, env: Mapping[str, str] | None = None) -> Image:
        """Shell commands, a layer each. env: variables for them alone."""
        image = self
        for command in commands:
            words = " ".join(f"{name}={shlex.quote(value)}" for name, value in (env or {}).items())
            text = f"export {words}\n{command}" if words else command
            image = image._run(f"run {command}", text)
        return image

    def apt_install(self, *packages: str) -> Image:
        """Debian packages, without what they only recommend. Neither lists nor archives stay in the image."""
        names = " ".join(map(shlex.quote, _words("apt_install", packages)))
        return self._run(f"apt_install {names}", f"{_APT} && {_APT_INSTALL} {names} && {_APT_TIDY}", _APT_MOUNTS)

    def pip_install(
        self,
        *packages: str,
        index_url: str = "",
        extra_index_url: str = "",
        find_links: str = "",
        pre: bool = False,
        extra_options: str = "",
    ) -> Image:
        """Python packages, into an environment at /opt/venv. What pip is configured with on this machine holds.

        extra_options: more words for `pip install`. Wheels are kept for the next image, apart from the image.
        """
        options = _pip_options(index_url, extra_index_url, find_links, pre) + extra_options
        names = " ".join(map(shlex.quote, _words("pip_install", packages)))
        text = f"pip_install {names} {options}".rstrip()
        return self._with_python()._run(text, f"{_PIP_INSTALL} {options} {names}", _PIP_MOUNTS)

    def pip_install_from_requirements(self, path: Path, *, extra_options: str = "") -> Image:
        """The packages of a requirements file; the step is made again when the file changes."""
        directory, name = os.path.split(os.path.abspath(path))
        if not os.path.isfile(path):
            raise NotFound(f"pip_install_from_requirements: {os.fspath(path)}: no such file")
        image, context = self._with_python()._context(directory)
        mount = _bind(context, name, f"/run/corten/requirements/{name}")
        command = f"{_PIP_INSTALL} {extra_options} -r /run/corten/requirements/{shlex.quote(name)}"
        return image._run(f"pip_install_from_requirements {name}", command, (*_PIP_MOUNTS, mount))

    def uv_sync(
        self,
        project: Path = ".",
        *,
        groups: Sequence[str] = (),
        extras: Sequence[str] = (),
        frozen: bool = True,
        extra_options: str = "",
    ) -> Image:
        """The locked dependencies of a project (pyproject.toml, uv.lock), without the project itself.

        frozen: take uv.lock as it is; else it must agree with pyproject.toml.
        """
        where = os.path.abspath(project)
        for name in ("pyproject.toml", "uv.lock"):
            if not os.path.isfile(f"{where}/{name}"):
                raise NotFound(f"uv_sync: {where}/{name}: no such file: `uv lock` makes uv.lock")
        image, context = self._with_python()._context(where)
        binds = tuple(_bind(context, name, f"/run/corten/project/{name}") for name in ("pyproject.toml", "uv.lock"))
        # Without --inexact it would take away what steps before have installed.
        words = ["--frozen" if frozen else "--locked", "--inexact", "--no-install-project"]
        words += ["--project", "/run/corten/project"]
        words += [part for group in groups for part in ("--group", group)]
        words += [part for extra in extras for part in ("--extra", extra)]
        options = " ".join(map(shlex.quote, words))
        command = f"{_UV_THERE} && {_UV_ENV} {_UV} sync {options} {extra_options}"
        return image._run(f"uv_sync {os.path.basename(where)} {options}", command, (*_UV_MOUNTS, *binds))

    def env(self, values: Mapping[str, str] | None = None, **more: str) -> Image:
        """Variables of the image."""
        pairs = tuple((name, _literal(str(value))) for name, value in {**(values or {}), **more}.items())
        return self._add(i.Env, f"env {' '.join(name for name, _ in pairs)}", values=pairs)

    def workdir(self, path: str) -> Image:
        """Where programs start, and later steps run; made where it is missing."""
        return self._add(i.Workdir, f"workdir {path}", path=_literal(path))

    def user(self, user: str) -> Image:
        """Who programs run as, `USER[:GROUP]`."""
        return self._add(i.User, f"user {user}", user=_literal(user))

    def entrypoint(self, words: Sequence[str]) -> Image:
        """What always runs."""
        return self._add(i.Entrypoint, f"entrypoint {list(words)}", command=Command(tuple(words), False))

    def cmd(self, words: Sequence[str]) -> Image:
        """What runs if nothing else is asked for."""
        return self._add(i.Cmd, f"cmd {list(words)}", command=Command(tuple(words), False))

    def add_local_file(self, source: Path, target: str, *, copy: bool = False) -> Image:
        """A file of this machine: shown at `target` when a container starts, or copied into the image."""
        return self._local("add_local_file", source, target, copy, ())

    def add_local_dir(
        self, source: Path, target: str, *, copy: bool = False, ignore: Sequence[str] = ()
    ) -> Image:
        """A directory of this machine: shown at `target` when a container starts, or copied into the image.

        ignore: patterns as in .dockerignore; only with `copy`, for what is shown is the directory as it is.
        """
        if ignore and not copy:
            raise InvalidInput("add_local_dir: ignore needs copy=True: a directory that is mounted is shown whole")
        return self._local("add_local_dir", source, target, copy, tuple(ignore))

    def _local(self, what: str, source: Path, target: str, copy: bool, ignore: tuple[str, ...]) -> Image:
        path = os.path.abspath(source)
        is_file = what == "add_local_file"
        if not (os.path.isfile(path) if is_file else os.path.isdir(path)):
            raise NotFound(f"{what}: {os.fspath(source)}: no such {'file' if is_file else 'directory'}")
        if not target.startswith("/"):
            raise InvalidInput(f"{what}: {target!r} is not absolute: it is a place in the container")
        if is_file and target.endswith("/"):
            target += os.path.basename(path)
        if not copy:
            option = MountOption("bind", os.path.normpath(target), path, read_only=True, label=what)
            return self.replace(mounts=(*self.mounts, option))
        directory, name = os.path.split(path) if is_file else (path, ".")
        image, context = self._context(directory, ignore)
        sources = (_literal(name),)
        return image._add(i.Copy, f"{what} {name} {target}", sources=sources, target=_literal(target), from_=context)

    # --- how steps are made

    def _add(self, kind: type[Instruction], text: str, **fields: Any) -> Image:
        step = kind(line=len(self.steps) + 1, text=text, **fields)
        return self.replace(steps=(*self.steps, step))

    def _run(self, text: str, command: str, mounts: tuple[RunMount, ...] = ()) -> Image:
        return self._add(i.Run, text, command=Command((command,), True), mounts=mounts)

    def _context(self, directory: str, ignore: tuple[str, ...] = ()) -> tuple[Image, str]:
        for name, path, patterns in self.contexts:
            if (path, patterns) == (directory, ignore):
                return self, name
        name = f"local-{len(self.contexts)}"
        return self.replace(contexts=(*self.contexts, (name, directory, ignore))), name

    def _with_python(self) -> Image:
        if self.python:
            return self
        image = self._run(f"python environment {VENV}", _MAKE_VENV, _APT_MOUNTS)
        pairs = (("VIRTUAL_ENV", VENV), ("PATH", f"{VENV}/bin:$PATH"))
        return image._add(i.Env, f"env PATH {VENV}/bin", values=pairs).replace(python=True)

    # --- building

    def build(self, *, quiet: bool = True, no_cache: bool = False, tags: Sequence[str] = ()) -> str:
        """Build what is not there yet; the digest. quiet: say nothing on standard error.

        BuildFailed: a step failed; its `output` has what the step printed last.
        """
        store = Store(home.directory())
        output = -1 if quiet else 2
        base = self.base
        names = tuple(map(store.reference, tags))
        if self.containerfile:
            from corten.build.entry import build_directory

            context, file, args, target = self.containerfile
            base = build_directory(
                context, file, BuildOptions(build_args=args, target=target, no_cache=no_cache), output
            ).digest
        contexts = {name: Context(path, "", ignore) for name, path, ignore in self.contexts}
        try:
            options = BuildOptions(tags=names, no_cache=no_cache, contexts=tuple(contexts.items()), host=host_settings)
            stage = Stage(0, "image", base, i.From(1, f"Image {base}", base), self.steps)
            builder = Builder(home.directory(), options, None, Progress(output))
            return builder.build(Containerfile("Image", "\\", (stage,))).digest
        finally:
            for one in contexts.values():
                one.close()

    def for_run(self) -> tuple[str, tuple[MountOption, ...]]:
        """What `corten.run` and `corten.start` take it for: the digest, built if need be, and what is shown besides."""
        return self.build(), self.mounts


def _words(what: str, words: Iterable[str]) -> tuple[str, ...]:
    found = tuple(words)
    for word in found:
        if not isinstance(word, str) or not word or word.startswith("-") or "\n" in word or "\0" in word:
            raise InvalidInput(f"{what}: {word!r} is no package")
    if not found:
        raise InvalidInput(f"{what}: names no package")
    return found


def _literal(text: str) -> str:
    """A text that comes back as it is when variables are replaced in it and quotes taken off."""
    return re.sub(r"([\\$\"'])", r"\\\1", text)


def _bind(context: str, source: str, target: str) -> RunMount:
    return RunMount("bind", (("from", context), ("source", _literal(source)), ("target", _literal(target))))


def _cache(name: str, target: str, sharing: str = "shared") -> RunMount:
    return RunMount("cache", (("id", f"corten-{name}"), ("target", target), ("sharing", sharing)))


def _pip_options(index_url: str, extra_index_url: str, find_links: str, pre: bool) -> str:
    given = (("--index-url", index_url), ("--extra-index-url", extra_index_url), ("--find-links", find_links))
    words = [word for option, value in given if value for word in (option, shlex.quote(value))]
    return "".join(f"{word} " for word in [*words, *(["--pre"] if pre else [])])


_APT = "apt-get -q -o APT::Sandbox::User=root update"
_APT_INSTALL = (
    "DEBIAN_FRONTEND=noninteractive apt-get -q -y -o APT::Sandbox::User=root -o APT::Keep-Downloaded-Packages=true "
    "-o Dpkg::Use-Pty=0 install --no-install-recommends"
)
_APT_TIDY = "rm -rf /var/log/apt /var/log/dpkg.log /var/log/alternatives.log /var/cache/ldconfig/aux-cache"
_APT_MOUNTS = (
    _cache("apt-archives", "/var/cache/apt", "locked"),
    _cache("apt-lists", "/var/lib/apt/lists", "locked"),
)
_MAKE_VENV = (
    f"if ! command -v python3 >/dev/null; then {_APT} && {_APT_INSTALL} python3 && {_APT_TIDY}; fi && "
    f"PYTHONPATH= python3 -m venv --without-pip --system-site-packages {VENV}"
)
_PIP_MOUNTS = (_cache("pip", "/run/corten/pip-cache"),)
_PIP_INSTALL = f"PIP_CACHE_DIR=/run/corten/pip-cache PYTHONPATH={PIP} {VENV}/bin/python -m pip install --no-input"
_UV_MOUNTS = (*_PIP_MOUNTS, _cache("uv", "/run/corten/uv-cache"), _cache("uv-tool", _TOOLS, "locked"))
_UV_THERE = f"{{ test -x {_UV} || {_PIP_INSTALL} --quiet --target {_TOOLS} uv; }}"
_UV_ENV = (
    f"UV_CACHE_DIR=/run/corten/uv-cache UV_LINK_MODE=copy UV_PROJECT_ENVIRONMENT={VENV} UV_PYTHON_DOWNLOADS=never "
    f"UV_PYTHON={VENV}/bin/python"
)
