"""Changes of an image's configuration as `docker import --change` has them. Pure."""

from __future__ import annotations

import shlex

from corten.errors import InvalidInput
from corten.json_text import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def changed(config: dict[str, Any], text: str) -> dict[str, Any]:
    """A configuration (the `config` of an image) with one instruction carried out. InvalidInput: it is none."""
    word, _, rest = text.strip().partition(" ")
    word, rest = word.upper(), rest.strip()
    if not rest:
        raise InvalidInput(f"change {text!r}: says nothing: such as 'CMD [\"sh\"]' or 'ENV A=1'")
    if word in ("CMD", "ENTRYPOINT"):
        return {**config, word.capitalize(): _command(text, rest)}
    if word in ("USER", "WORKDIR", "STOPSIGNAL"):
        return {**config, {"USER": "User", "WORKDIR": "WorkingDir", "STOPSIGNAL": "StopSignal"}[word]: rest}
    try:
        words = shlex.split(rest)
    except ValueError as error:
        raise InvalidInput(f"change {text!r}: {error}") from None
    if word in ("VOLUME", "EXPOSE"):
        key = {"VOLUME": "Volumes", "EXPOSE": "ExposedPorts"}[word]
        names = _list(text, rest) if rest.startswith("[") else words
        if word == "EXPOSE":
            names = [name if "/" in name else f"{name}/tcp" for name in names]
        return {**config, key: {**config.get(key, {}), **{name: {} for name in names}}}
    if word in ("ENV", "LABEL"):
        pairs = [one.partition("=") for one in words]
        if not all(name and equals for name, equals, _ in pairs):
            raise InvalidInput(f"change {text!r}: expected NAME=VALUE")
        if word == "LABEL":
            return {**config, "Labels": {**config.get("Labels", {}), **{name: value for name, _, value in pairs}}}
        kept = dict(one.split("=", 1) for one in config.get("Env", []))
        kept.update((name, value) for name, _, value in pairs)
        return {**config, "Env": [f"{name}={value}" for name, value in kept.items()]}
    raise InvalidInput(f"change {text!r}: {word} cannot be changed so")


def _command(text: str, rest: str) -> list[str]:
    return _list(text, rest) if rest.startswith("[") else ["/bin/sh", "-c", rest]


def _list(text: str, rest: str) -> list[str]:
    try:
        found = loads(rest)
    except ValueError:
        found = None
    if not isinstance(found, list) or not all(isinstance(word, str) for word in found):
        raise InvalidInput(f"change {text!r}: {rest} is no JSON list of words")
    return found
