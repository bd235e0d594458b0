"""`corten build`: an image from a Containerfile."""

from __future__ import annotations

import os
import signal
import sys

from corten.cli.parser import Command, Group, Option, UsageError, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.build.builder import BuildOptions

COMMAND = Command(
    "corten build",
    "[OPTIONS] CONTEXT",
    "Build an image from a Containerfile and the files of a directory, the context. Prints the image's digest.",
    (
        Group(
            "What to build",
            (
                Option(("-f", "--file"), "FILE", "The Containerfile, if not the one in CONTEXT; or -"),
                Option(("-t", "--tag"), "NAME", "A name for the image; may be repeated", repeat=True),
                Option(("--target",), "STAGE", "Build this stage, by name or number, instead of the last"),
                Option(("--build-arg",), "NAME[=VALUE]", "For ARG; without VALUE from the environment", repeat=True),
                Option(("--build-context",), "NAME=DIR", "A directory more, for COPY --from=NAME", repeat=True),
                Option(("--label",), "NAME=VALUE", "One more label", repeat=True),
                Option(("--timestamp",), "SECONDS", "No time in it is later; or set SOURCE_DATE_EPOCH"),
            ),
        ),
        Group(
            "How to build",
            (
                Option(("--no-cache",), "", "Carry out every step anew"),
                Option(("--jobs",), "NUMBER", "Stages at the same time; by default the number of CPUs"),
                Option(("--secret",), "id=NAME,src=FILE", "For RUN --mount=type=secret; or id=,env=", repeat=True),
                Option(("-v", "--volume"), "SRC:DST[:ro]", "Show this to every RUN; no part of the image", repeat=True),
                Option(("--network",), "NAME", "Network of RUN: host (the default) or none"),
                Option(("-q", "--quiet"), "", "Print nothing but the digest"),
                Option(("--pull",), "POLICY", "Fetch images: always, missing (the default) or never"),
                Option(("--platform",), "NAME", refuse="only this machine's platform can be built for"),
                Option(("--ssh",), "NAME", refuse="forwarding of ssh agents is not available: use --secret for a key"),
                Option(("--squash",), "", refuse="layers are kept apart, so that they can be shared"),
            ),
        ),
    ),
    minimum=1,
    maximum=1,
    missing="build needs a context directory, such as: corten build .",
    interspersed=True,
)


def run(words: Sequence[str]) -> int:
    """Build; 0."""
    values, arguments = parse(COMMAND, words)
    options = _options(values)
    from corten.build.entry import build_directory
    from corten.cli.transfer_view import watching

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _stop)
    quiet = values.get("quiet", False)
    output = -1 if quiet else 2
    try:
        image = build_directory(arguments[0], values.get("file", ""), options, output, lambda: watching(quiet))
    finally:
        for _, context in options.contexts:
            context.close()
    sys.stdout.write(f"{image.digest}\n")
    return 0


def _stop(number: int, _: object) -> None:
    """End as by Ctrl-C, so that what runs is ended and nothing half made stays."""
    raise SystemExit(128 + number)


def _options(values: dict[str, Any]) -> BuildOptions:
    from corten.build.builder import BuildOptions
    from corten.engine import mounts
    from corten.engine.home import directory
    from corten.images.store.images import Store

    network = values.get("network", "host")
    if network not in ("host", "none"):
        raise UsageError(f"--network: {network!r}: use host or none")
    pull = values.get("pull", "missing")
    if pull not in ("always", "missing", "never"):
        raise UsageError(f"--pull: {pull!r}: use always, missing or never")
    return BuildOptions(
        tags=tuple(map(Store(directory()).reference, values.get("tag", ()))),
        target=values.get("target", ""),
        build_args=tuple(pair for text in values.get("build_arg", ()) if (pair := _build_arg(text))),
        labels=tuple(_pair("--label", text) for text in values.get("label", ())),
        no_cache=values.get("no_cache", False),
        secrets=tuple(_secret(text) for text in values.get("secret", ())),
        volumes=tuple(mounts.volume("--volume", text) for text in values.get("volume", ())),
        contexts=tuple(_context(text) for text in values.get("build_context", ())),
        network=network,
        pull=pull,
        epoch=_epoch(values.get("timestamp")),
        jobs=_number("--jobs", values.get("jobs", "0")),
    )


def _number(label: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise UsageError(f"{label}: {text!r} is no number")
    return int(text)


def _epoch(given: str | None) -> int | None:
    if given is not None:
        return _number("--timestamp", given)
    text = os.environ.get("SOURCE_DATE_EPOCH")
    return _number("SOURCE_DATE_EPOCH", text) if text else None


def _pair(label: str, text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise UsageError(f"{label}: {text!r}: write NAME=VALUE")
    return name, value


def _context(text: str) -> tuple[str, Any]:
    from corten.build.trees import Context

    name, path = _pair("--build-context", text)
    return name, Context(path)


def _build_arg(text: str) -> tuple[str, str] | None:
    name, equals, value = text.partition("=")
    if not name:
        raise UsageError(f"--build-arg: {text!r} has no name")
    if equals:
        return name, value
    return (name, os.environ[name]) if name in os.environ else None


def _secret(text: str) -> tuple[str, Any]:
    from corten.build.run_mounts import Secret

    fields = dict(part.partition("=")[::2] for part in text.split(","))
    name, kind = fields.pop("id", ""), fields.pop("type", "")
    file = fields.pop("src", fields.pop("source", ""))
    env = fields.pop("env", "")
    if not name or fields or kind not in ("", "file", "env"):
        raise UsageError(f"--secret: {text!r}: write id=NAME,src=FILE or id=NAME,env=VARIABLE")
    if not file and not env:
        if name not in os.environ:
            raise UsageError(f"--secret: {text!r} says not where it is: add src=FILE or env=VARIABLE")
        env = name
    if file:
        file = os.path.abspath(os.path.expanduser(file))
        if not os.path.isfile(file):
            raise UsageError(f"--secret: {file}: no such file")
    elif env not in os.environ:
        raise UsageError(f"--secret: the environment has no variable {env}")
    return name, Secret(file, env)
