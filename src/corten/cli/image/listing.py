"""`corten image ls`, `inspect` and `history`: what there is."""

from __future__ import annotations

import sys

from corten.cli.columns import age, lines, printable
from corten.cli.parser import Command, Group, Option, parse
from corten.engine.quantities import show_size
from corten.errors import Error, NotFound

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from corten.images.store.images import Image, Store

_JSON = Option(("--json",), help="Print JSON")
LS = Command(
    "corten image ls",
    "[OPTIONS] [NAME]",
    "List images, newest first. NAME: only those whose name has this in it. SIZE is that of the packed layers.",
    (
        Group(
            "Options",
            (
                Option(("-q", "--quiet"), help="Print only ids"),
                Option(("-a", "--all"), help="Also those without a name"),
                Option(("--digests",), help="Print ids in full"),
                _JSON,
            ),
        ),
    ),
    maximum=1,
    interspersed=True,
)
INSPECT = Command(
    "corten image inspect", "IMAGE...", "Show images as JSON: names, digests, manifest and configuration.",
    minimum=1, missing="image inspect: needs an IMAGE", interspersed=True,
)  # fmt: skip
HISTORY = Command(
    "corten image history", "[OPTIONS] IMAGE", "Show what made each layer of an image, the newest first.",
    (Group("Options", (Option(("--no-trunc",), help="Do not cut lines"), _JSON)),),
    minimum=1, maximum=1, missing="image history: needs an IMAGE", interspersed=True,
)  # fmt: skip


def ls(words: Sequence[str]) -> int:
    """List; 0."""
    values, arguments = parse(LS, words)
    part = arguments[0] if arguments else ""
    found = []
    damaged: list[str] = []
    for image in _store().images(damaged.append):
        names = [name for name in image.names if part in name]
        if names or (not part and (values.get("all") or not image.names)):
            found.append((image, names))
    found.sort(key=lambda pair: (pair[0].config.raw.get("created", ""), pair[0].digest), reverse=True)
    if values.get("json"):
        _print_json([_summary(image, names) for image, names in found])
    elif values.get("quiet"):
        ids = [image.digest if values.get("digests") else image.digest[7:19] for image, _ in found]
        sys.stdout.write("".join(f"{one}\n" for one in dict.fromkeys(ids)))
    else:
        sys.stdout.write(_table(found, values.get("digests", False)))
    return complain(damaged)


def complain(damaged: Sequence[str]) -> int:
    """Write what is wrong with some images after what could be said of the others; the exit code."""
    sys.stdout.flush()
    sys.stderr.write("".join(f"corten: {line}\n" for line in damaged))
    return Error.exit_code if damaged else 0


def _table(found: Sequence[tuple[Image, list[str]]], whole: bool) -> str:
    rows = [("REPOSITORY", "TAG", "IMAGE ID", "PLATFORM", "CREATED", "SIZE")]
    for image, names in found:
        shown = image.digest if whole else image.digest[7:19]
        size = show_size(sum(layer.blob.size for layer in image.layers))
        about = (shown, str(image.config.platform), age(image.config.raw.get("created", "")), size)
        rows += [(*_split(name), *about) for name in names or [""]]
    return lines(rows)


def _split(name: str) -> tuple[str, str]:
    if not name:
        return "<none>", "<none>"
    from corten.images.references import parse as parse_reference

    reference = parse_reference(name)
    repository = reference.replace(tag="", digest="").short
    return repository, reference.tag or reference.digest[:19]


def _store() -> Store:
    from corten.engine.home import directory
    from corten.images.store.images import Store

    return Store(directory())


def found_image(store: Store, text: str) -> Image:
    """The image that is meant. NotFound: it is not in the store."""
    image = store.find(text)
    if image is None:
        raise NotFound(f"image {text!r}: is not in the store: see 'corten image ls'")
    return image


def _summary(image: Image, names: Sequence[str]) -> dict[str, Any]:
    return {
        "digest": image.digest,
        "names": list(names),
        "platform": str(image.config.platform),
        "created": image.config.raw.get("created", ""),
        "size": sum(layer.blob.size for layer in image.layers),
        "layers": [layer.blob.digest for layer in image.layers],
    }


def inspect(words: Sequence[str]) -> int:
    """Inspect; 0."""
    _, arguments = parse(INSPECT, words)
    from corten.runtime.spec import encode

    store = _store()
    found = []
    for text in arguments:
        image = found_image(store, text)
        names = [one.name for one in store.names.all() if one.manifest.digest == image.digest and one.name]
        unpacked = [store.layers.path(diff_id) for diff_id in image.config.diff_ids]
        more = {"unpacked": unpacked, "manifest": encode(image.manifest), "config": image.config.raw}
        found.append({**_summary(image, names), **more})
    return _print_json(found)


def history(words: Sequence[str]) -> int:
    """History; 0."""
    values, arguments = parse(HISTORY, words)
    image = found_image(_store(), arguments[0])
    layers = list(image.layers)
    entries = []
    for entry in image.config.raw.get("history") or [{}] * len(layers):
        layer = None if entry.get("empty_layer") or not layers else layers.pop(0)
        entries.append((entry, layer))
    entries += [({}, layer) for layer in layers]
    entries.reverse()
    if values.get("json"):
        return _print_json(
            [{**entry, "digest": layer.blob.digest if layer else "", "size": layer.blob.size if layer else 0}
             for entry, layer in entries]
        )  # fmt: skip
    rows = [("LAYER", "CREATED", "SIZE", "CREATED BY")]
    for entry, layer in entries:
        said = [entry.get("created_by") or "", f"# {entry['comment']}" if entry.get("comment") else ""]
        by = printable(" ".join(said))
        if not values.get("no_trunc") and len(by) > 60:
            by = f"{by[:59]}…"
        about = (layer.blob.digest[7:19], show_size(layer.blob.size)) if layer else ("-", "0 bytes")
        rows.append((about[0], age(entry.get("created", "")), about[1], by))
    sys.stdout.write(lines(rows))
    return 0


def _print_json(value: object) -> int:
    import json

    json.dump(value, sys.stdout, indent=2, ensure_ascii=False)
    sys.stdout.write("\n")
    return 0
