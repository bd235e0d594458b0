"""Owners of an image's files that could not be had: a user without ranges in /etc/subuid owns all that it unpacks.

When there are ranges later, the next start of the image unpacks such layers again (`sources.resolve`).
"""

from __future__ import annotations

import os

from corten.linux import idmap

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from corten.images.store.layers import Layers


def complaint(layers: Layers, diff_ids: Iterable[str], name: str) -> str:
    """A line about an image whose owners are not all right, why, and what to do; "" for one whose are."""
    if not os.geteuid():
        return ""
    count = sum(map(layers.squashed, dict.fromkeys(diff_ids)))
    if not count:
        return ""
    why = idmap.subordinate_problem(os.geteuid()) or "it was unpacked when there were no ranges, and is in use"
    return f"image {name}: {count} of its files belong to others than root, and all are yours here: {why}"
