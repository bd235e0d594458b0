"""`corten image pull` and `push`."""

from __future__ import annotations

import sys

from corten.cli.parser import Command, Group, Option, parse
from corten.cli.transfer_view import SENDING, watching

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.images.store.images import Store

_QUIET = Option(("-q", "--quiet"), help="Print nothing but the digest")
PULL = Command(
    "corten image pull",
    "[OPTIONS] IMAGE",
    "Fetch an image from its registry and unpack it. Prints its digest.",
    (
        Group(
            "Options",
            (Option(("--platform",), "OS/ARCH", "Which platform, such as linux/arm64; default this machine's"), _QUIET),
        ),
    ),
    minimum=1,
    maximum=1,
    missing="image pull: needs an IMAGE, such as: corten image pull debian:bookworm",
    interspersed=True,
)
PUSH = Command(
    "corten image push",
    "[OPTIONS] IMAGE [DESTINATION]",
    "Send an image to the registry in its name, or in DESTINATION. Prints the digest.",
    (Group("Options", (_QUIET,)),),
    minimum=1,
    maximum=2,
    missing="image push: needs an IMAGE, such as: corten image push registry.example/app:1",
    interspersed=True,
)


def tell_owners(store: Store, config: str, name: str) -> None:
    """Tell if files of an image that came have not got their owners."""
    from corten.images.layers.owners import complaint

    line = complaint(store.layers, store.config(config).diff_ids, name)
    if line:
        sys.stderr.write(f"corten: {line}\n")


def pull(words: Sequence[str]) -> int:
    """Pull; 0."""
    values, (image,) = parse(PULL, words)
    from corten.engine.home import directory
    from corten.images.registry.pulling import pull as fetch
    from corten.images.store.images import Store

    watcher = watching(values.get("quiet", False))
    store = Store(directory())
    record = fetch(store, image, values.get("platform", ""), watcher)
    tell_owners(store, record.config, record.name)
    sys.stdout.write(f"{record.manifest.digest}\n")
    return 0


def push(words: Sequence[str]) -> int:
    """Push; 0."""
    values, arguments = parse(PUSH, words)
    from corten.engine.home import directory
    from corten.images.registry.pushing import push as send
    from corten.images.store.images import Store

    digest = send(Store(directory()), arguments[0], arguments[-1], watching(values.get("quiet", False), SENDING))
    sys.stdout.write(f"{digest}\n")
    return 0
