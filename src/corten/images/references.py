"""Names of images as docker users write them. Pure.

    debian                          docker.io/library/debian:latest
    ghcr.io/org/app:1.2             as it stands
    localhost:5000/x@sha256:…       a registry on this machine, and exactly this content

Rule 1: the first part is a registry if it has a dot or a colon, or is `localhost`; else the default registry is meant.
Rule 2: a digest outweighs a tag; without either the tag is `latest`.
Source of the grammar: the distribution project's reference package (github.com/distribution/reference).
"""

from __future__ import annotations

from corten.errors import InvalidInput
from corten.records import Record

DEFAULT_REGISTRY = "docker.io"
_LONGEST = 255  # bytes of registry and repository together
_LOWER = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_HEX = frozenset("0123456789abcdef")
_WORD = _LOWER | frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZ_")
_DIGITS = {"sha256": 64, "sha512": 128}


class Reference(Record):
    """One image: registry (`docker.io`), repository (`library/debian`), and a tag, a digest, or both."""

    registry: str
    repository: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and repository."""
        return f"{self.registry}/{self.repository}"

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def short(self) -> str:
        """As people write it: without `docker.io` and `library`, where it means the same so."""
        first, slash, rest = self.repository.partition("/")
        if self.registry != DEFAULT_REGISTRY or (slash and _is_registry(first)):
            return str(self)
        plain = first == "library" and "/" not in rest
        return str(self)[len(DEFAULT_REGISTRY) + 1 :].removeprefix("library/" if plain else "")


def parse(text: str, default_registry: str = DEFAULT_REGISTRY) -> Reference:
    """The reference that a person wrote. InvalidInput: it is none, and why."""
    rest, at, digest = text.partition("@")
    if at:
        check_digest(digest, f"image {text!r}")
    head, slash, last = rest.rpartition("/")
    last, colon, tag = last.partition(":")
    name = head + slash + last
    if colon and not is_tag(tag):
        raise _wrong(text, f"the tag {tag!r} is not up to 128 letters, digits, '_', '.' and '-', beginning with a word")
    first, slash, path = name.partition("/")
    if slash and _is_registry(first):
        registry = first
    else:
        registry, path = default_registry, name
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and path and "/" not in path:
        path = f"library/{path}"
    _check_name(text, registry, path)
    return Reference(registry, path, tag if colon else "" if digest else "latest", digest)


def _is_registry(first: str) -> bool:
    return "." in first or ":" in first or first == "localhost"


def is_tag(tag: str) -> bool:
    """Whether a registry takes this as a tag."""
    return 0 < len(tag) <= 128 and tag[0] in _WORD and all(c in _WORD or c in ".-" for c in tag)


def _check_name(text: str, registry: str, path: str) -> None:
    host, colon, port = registry.partition(":")
    if host.startswith("["):  # an IPv6 address
        host, colon, port = (registry.partition("]")[0] + "]", *registry.partition("]")[2].partition(":")[1:])
        good = host.endswith("]") and all(c in _HEX or c in ":." for c in host[1:-1].lower()) and len(host) > 2
    else:
        good = bool(host) and all(
            label and (label[0].isalnum() and label[-1].isalnum()) and all(c.isalnum() or c == "-" for c in label)
            for label in host.split(".")
        )
    if not good or not registry.isascii() or (colon and not (port.isdigit() and len(port) <= 5)):
        raise _wrong(text, f"{registry!r} is no registry's name")
    if not path:
        raise _wrong(text, "there is no name")
    if path != path.lower():
        raise _wrong(text, "names of images are lower case")
    for part in path.split("/"):
        if not _is_component(part):
            raise _wrong(text, f"{part!r} is no part of a name: letters and digits, with '.', '_', '__' or '-' between")
    if len(registry) + 1 + len(path) > _LONGEST:
        raise _wrong(text, f"the name is longer than {_LONGEST} characters")


def _is_component(part: str) -> bool:
    if not part or part[0] not in _LOWER or part[-1] not in _LOWER:
        return False
    separator = ""
    for c in part:
        if c in _LOWER:
            if separator not in ("", ".", "_", "__") and separator.strip("-"):
                return False
            separator = ""
        elif c in "._-":
            separator += c
        else:
            return False
    return True


def is_digest(text: str) -> bool:
    """Whether this is a whole digest of a kind that can be checked here."""
    algorithm, _, digits = text.partition(":")
    return _DIGITS.get(algorithm) == len(digits) and all(c in _HEX for c in digits)


def check_digest(text: str, place: str) -> None:
    """InvalidInput, beginning with `place`, for what is not a digest."""
    if is_digest(text):
        return
    algorithm, _, digits = text.partition(":")
    if algorithm in _DIGITS:
        raise InvalidInput(f"{place}: {algorithm} has {_DIGITS[algorithm]} digits 0-9a-f, not {digits!r}")
    raise InvalidInput(f"{place}: {text!r} is no digest: sha256: or sha512: and its digits")


def is_prefix(text: str) -> bool:
    """Whether this may be the beginning of a digest, as people copy it from `image ls`."""
    digits = text.removeprefix("sha256:")
    return 4 <= len(digits) <= 64 and all(c in _HEX for c in digits)


def _wrong(text: str, why: str) -> InvalidInput:
    return InvalidInput(f"image {text!r}: {why}")
