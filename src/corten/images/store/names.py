"""Which images there are, by name: one small JSON file each.

    DIR/docker.io%2Flibrary%2Fdebian:bookworm     what a name stands for
    DIR/sha256:HEX                                an image without a name (built without a tag, or its tag has moved on)

Rule: a record is written to a temporary file, synced and renamed; so it is whole or not there. Whoever wants to know
all names lists the directory.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput
from corten.images.manifests import Descriptor, Platform
from corten.images.references import Reference
from corten.images.store.failures import complaint
from corten.json_text import dumps, loads
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_LONGEST = 240


class Name(Record):
    """What a name stands for.

    name: the whole reference as text, "" for an image without one; manifest: of the image for one platform; index: of
    what the registry has under the name, if that is more than one platform; since: when it got the name (Unix time, s);
    config: the digest of its configuration, so that it can be run without a look at the manifest.
    """

    name: str
    manifest: Descriptor
    index: Descriptor | None = None
    since: int = 0
    config: str = ""


class Names:
    """The records below one directory, which is made when it is first written to."""

    def __init__(self, directory: str) -> None:
        self.directory = directory

    def get(self, reference: Reference | str) -> Name | None:
        """What a reference, or the digest of an image without a name, stands for; None if it is not known.

        InvalidInput: its record is damaged.
        """
        return self._read(_file_name(str(reference)))

    def _read(self, file_name: str) -> Name | None:
        try:
            with open(f"{self.directory}/{file_name}", "rb") as file:
                text = file.read()
        except FileNotFoundError:
            return None
        try:
            found = loads(text.decode())
            index = found.get("index")
            manifest = _descriptor(found["manifest"])
            return Name(found["name"], manifest, index and _descriptor(index), found["since"], found["config"])
        except (ValueError, KeyError, TypeError, AttributeError):
            name = file_name.replace("%2F", "/")
            raise InvalidInput(
                f"image {name}: is damaged, in {self.directory}/{file_name}: get it again, or remove it with "
                "'corten image rm'"
            ) from None

    def _files(self) -> list[str]:
        try:
            return sorted(name for name in os.listdir(self.directory) if name[0] != ".")
        except FileNotFoundError:
            return []

    def all(self) -> Iterator[Name]:
        """All records that are whole, sorted by file name."""
        for file_name in self._files():
            try:
                record = self._read(file_name)
            except InvalidInput:
                continue
            if record is not None:  # else it went meanwhile
                yield record

    def damaged(self) -> Iterator[str]:
        """A line about each record that is not whole."""
        for file_name in self._files():
            try:
                self._read(file_name)
            except InvalidInput as error:
                yield str(error)

    def set(self, record: Name) -> None:
        """Write a record; one of the same name is replaced."""
        key = record.name or record.manifest.digest
        path, draft = f"{self.directory}/{_file_name(key)}", f"{self.directory}/.{os.urandom(8).hex()}"
        data: dict[str, object] = {"name": record.name, "manifest": _plain(record.manifest)}
        if record.index:
            data["index"] = _plain(record.index)
        data.update(since=record.since, config=record.config)
        try:
            os.makedirs(self.directory, exist_ok=True)
            fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
            try:
                os.write(fd, f"{dumps(data, 2)}\n".encode())
                os.fsync(fd)
                os.rename(draft, path)
            except BaseException:
                os.unlink(draft)
                raise
            finally:
                os.close(fd)
        except OSError as error:
            raise Error(complaint(error, f"the name {key}", self.directory)) from None

    def remove(self, key: str) -> bool:
        """Remove a record by its name, or by its digest if it has none; whether it was there."""
        try:
            os.unlink(f"{self.directory}/{_file_name(key)}")
        except FileNotFoundError:
            return False
        return True

    def sweep(self) -> int:
        """Remove drafts of writers that were killed; how many. Call it while nobody else may write (`Using` alone)."""
        left = [name for name in os.listdir(self.directory) if name[0] == "."] if os.path.isdir(self.directory) else []
        for name in left:
            os.unlink(f"{self.directory}/{name}")
        return len(left)


def _file_name(key: str) -> str:
    name = key.replace("/", "%2F")
    if len(name) <= _LONGEST:
        return name
    import hashlib

    return f"long-{hashlib.sha256(key.encode()).hexdigest()}"


def _plain(descriptor: Descriptor) -> dict[str, object]:
    found: dict[str, object] = {
        "mediaType": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size,
    }  # fmt: skip
    if descriptor.platform:
        found["platform"] = str(descriptor.platform)
    return found


def _descriptor(found: dict[str, str]) -> Descriptor:
    words = found.get("platform", "").split("/")
    platform = Platform(*words) if len(words) > 1 else None
    return Descriptor(found["mediaType"], found["digest"], int(found["size"]), platform)
