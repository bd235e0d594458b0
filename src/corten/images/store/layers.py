"""Unpacked layers: directories named by diff id, in the form that an overlay takes, shared by all images.

    DIR/sha256-HEX/tree       the files of a layer; deleted names are 0/0 character devices, replaced directories opaque
    DIR/sha256-HEX/squashed   how many of them should belong to others than they do, for the user has no other ids

Rule 1: a layer is made once (`once.make`): it gets its name when it is whole, checked against its diff id and synced.
Rule 2: who mounts layers holds them (`hold`): what is held is not removed.
Rule 3: a layer is the same whatever lies below it. So it is found by its diff id alone.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput
from corten.images.references import check_digest
from corten.images.store import once
from corten.images.store.failures import complaint

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


SQUASHED = "squashed"


class Layers:
    """The layers below one directory, which is made when it is first written to."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def path(self, diff_id: str) -> str:
        """The directory with a layer's files, an overlay's lower; it exists if `has`."""
        return f"{self.directory}/{_key(diff_id)}/tree"

    def has(self, diff_id: str) -> bool:
        """Whether it is there, whole."""
        return os.path.isdir(f"{self.directory}/{_key(diff_id)}")

    def is_squashed(self, diff_id: str) -> bool:
        """Whether it was unpacked by a user who has no other ids, so that not all owners are right."""
        return os.path.exists(f"{self.directory}/{_key(diff_id)}/{SQUASHED}")

    def squashed(self, diff_id: str) -> int:
        """How many files have another owner than they should."""
        try:
            with open(f"{self.directory}/{_key(diff_id)}/{SQUASHED}", encoding="ascii") as file:
                return int(file.read())
        except FileNotFoundError:
            return 0

    def make(self, diff_id: str, fill: Callable[[str], None]) -> str:
        """The layer's directory, which `fill(directory)` fills if it is not there yet; others who want it wait.

        `fill` gets an empty directory, checks the diff id and syncs. Whatever it raises leaves nothing behind.
        """
        check_digest(diff_id, "layer")

        def draft(path: str) -> None:
            os.mkdir(f"{path}/tree", 0o755)
            os.chmod(f"{path}/tree", 0o755)  # noqa: S103 - whatever the umask
            fill(f"{path}/tree")

        # Not for others to look into: it may hold programs with the set-user-id bit.
        return once.make(self.directory, _key(diff_id), draft, f"layer {diff_id}", 0o700) + "/tree"

    def adopt(self, diff_id: str, directory: str) -> str:
        """Make a directory, in overlay form and of this diff id, a layer: it is moved here. Error: no permission."""

        def move(path: str) -> None:
            os.rename(directory, f"{path}/tree")

        check_digest(diff_id, "layer")
        try:
            return once.make(self.directory, _key(diff_id), move, f"layer {diff_id}", 0o700) + "/tree"
        except OSError as error:
            raise Error(complaint(error, f"layer {diff_id}", self.directory)) from None

    def hold(self, diff_id: str) -> int:
        """Keep a layer from being removed for as long as the descriptor is open. InvalidInput: it is not there."""
        fd = once.hold(f"{self.directory}/{_key(diff_id)}")
        if fd < 0:
            raise InvalidInput(f"layer {diff_id}: was removed: pull the image again")
        return fd

    def remove(self, diff_id: str) -> bool:
        """Remove a layer unless it is in use; whether it is gone."""
        return once.remove(self.directory, _key(diff_id))

    def all(self) -> Iterator[str]:
        """The diff ids of all that are there."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        yield from (name.replace("-", ":", 1) for name in sorted(names) if name[0] != ".")

    def sweep(self) -> int:
        """Remove what killed processes left half made; how many."""
        return once.sweep(self.directory)


def _key(diff_id: str) -> str:
    return diff_id.replace(":", "-", 1)
