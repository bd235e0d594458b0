"""`corten image tag`, `rm` and `prune`: names given and taken away."""

from __future__ import annotations

import sys

from corten.cli.image.listing import found_image
from corten.cli.parser import Command, Group, Option, parse
from corten.engine.quantities import show_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.images.store.images import Store
    from corten.images.store.removal import Freed

TAG = Command(
    "corten image tag", "IMAGE NAME...", "Give an image further names.",
    minimum=2, missing="image tag: needs an IMAGE and a NAME, such as: corten image tag app registry.example/app:1",
)  # fmt: skip
RM = Command(
    "corten image rm", "[OPTIONS] IMAGE...",
    "Take names away; an image without a name is removed, and so is what only it needed. A digest means all its names.",
    (Group("Options", (Option(("-f", "--force"), help="By digest, even if it has several names"),)),),
    minimum=1, missing="image rm: needs an IMAGE", interspersed=True,
)  # fmt: skip
PRUNE = Command(
    "corten image prune", "[OPTIONS]",
    "Remove images without a name, and all that no image needs any more.",
    (
        Group(
            "Options",
            (
                Option(("-a", "--all"), help="Also images with a name that no container uses"),
                Option(("--builds",), help="Also what builds keep: results of steps, caches of RUN --mount"),
                Option(("-f", "--force"), help="Accepted for docker's sake: nothing is asked", hidden=True),
            ),
        ),
    ),
    maximum=0,
)  # fmt: skip


def _store() -> Store:
    from corten.engine.home import directory
    from corten.images.store.images import Store

    return Store(directory())


def tag(words: Sequence[str]) -> int:
    """Tag; 0."""
    _, (text, *names) = parse(TAG, words)
    store = _store()
    references = [store.reference(name) for name in names]
    with store.using():
        image = found_image(store, text)
        for reference in references:
            store.tag(image, reference)
    return 0


def rm(words: Sequence[str]) -> int:
    """Remove; 0."""
    values, arguments = parse(RM, words)
    from corten.images.store.removal import remove

    store = _store()
    for text in arguments:
        freed = remove(store, text, values.get("force", False))
        sys.stdout.write("".join(f"untagged {name}\n" for name in freed.names))
        sys.stdout.write("".join(f"removed {digest}\n" for digest in freed.images))
    return 0


def prune(words: Sequence[str]) -> int:
    """Prune; 0."""
    values, _ = parse(PRUNE, words)
    from corten.images.store.removal import prune as remove_unused

    if values.get("builds"):
        from corten.build.pruning import prune as prune_builds
        from corten.engine.home import directory

        pruned = prune_builds(directory())
        sys.stdout.write(f"removed {pruned.steps} results of build steps, and {pruned.caches} caches\n")
    freed = remove_unused(_store(), values.get("all", False))
    sys.stdout.write("".join(f"removed {digest}\n" for digest in freed.images))
    sys.stdout.write(f"{_words(freed)}\n")
    return 0


def _words(freed: Freed) -> str:
    return f"freed {show_size(freed.size)} in {freed.blobs} blobs, and {freed.layers} unpacked layers"
