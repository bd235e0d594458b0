"""The configuration rules of opencontainers/runtime-tools, by its own library: what breaks one is refused by us too.

Debian ships the library, and not the validation programs that run a runtime; docs/oci.md says what follows.
"""

from __future__ import annotations

import copy
import json
import os
import subprocess
from pathlib import Path

import pytest

from corten.engine.bundle import load
from corten.errors import InvalidInput
from oci_bundles import TABLE, USERNS
from oci_runtime import CORTEN_OCI, TIMEOUT, config_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Validator = Callable[[list[Path]], list[list[str]]]

HERE = Path(__file__).parent
VERSION = "1.0.2-dev"  # the only one that Debian's library takes

# Words of a rule that we do not share, and why. What is not named here must be refused by both.
NOT_OURS = {
    "capability": "one that is unknown or cannot be granted is left out with a warning, as specification 1.1 asks",
    "should be the conventional": "not a must",
    "cannot find the root path": "looked at when the container is made: the differential test has it",
    "is not absolute": "a relative destination is from `/`, as runc takes it; images of old tools have them",
    "the library fails": "a mistake of its own",
}


@pytest.fixture(scope="module")
def validator(tmp_path_factory: pytest.TempPathFactory) -> Validator:
    """The library as a program."""
    program = tmp_path_factory.mktemp("validator") / "validator"
    cache = HERE.parents[2] / "build/go-cache"
    settings = {"GOPATH": "/usr/share/gocode", "GO111MODULE": "off", "CGO_ENABLED": "0", "GOFLAGS": ""}
    subprocess.run(
        ["go", "build", "-o", program, "validator.go"], cwd=HERE / "validator", check=True,
        env={**os.environ, **settings, "GOCACHE": str(cache)}, timeout=4 * TIMEOUT,
    )  # fmt: skip

    def run(bundles: list[Path]) -> list[list[str]]:
        text = "".join(f"{path}\n" for path in bundles)
        done = subprocess.run([program], input=text, capture_output=True, text=True, check=True, timeout=TIMEOUT)
        return [json.loads(line) for line in done.stdout.splitlines()]

    return run


def test_what_spec_writes_breaks_no_rule(validator: Validator, tmp_path: Path) -> None:
    for words in ((), ("--rootless",)):
        place = tmp_path / f"bundle{len(words)}"
        (place / "rootfs").mkdir(parents=True)
        subprocess.run([CORTEN_OCI, "spec", "--bundle", place, *words], check=True)
        config = json.loads((place / "config.json").read_text())
        config["ociVersion"] = VERSION
        (place / "config.json").write_text(json.dumps(config))
        assert validator([place]) == [[]]


def spoilt(config: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The configuration with each of its values taken away, and replaced by others of all kinds."""
    for path in list(places(config)):
        for name, value in (("without", None), ("empty", ""), ("text", "x"), ("number", -1), ("list", []), ("x", {})):
            changed = copy.deepcopy(config)
            at: Any = changed
            for key in path[:-1]:
                at = at[key]
            if name == "without":
                del at[path[-1]]
            else:
                at[path[-1]] = value
            yield f"{'.'.join(map(str, path))} {name}", changed


def places(value: Any, above: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every value."""
    if above:
        yield above
    for key, item in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from places(item, (*above, key))


def refusal(text: str) -> str:
    try:
        load(text)
    except InvalidInput as error:
        return str(error)
    return ""


def test_what_breaks_a_rule_is_refused(validator: Validator, rootfs: Path, tmp_path: Path) -> None:
    config = config_of(rootfs, "true")
    TABLE["devices"](config)
    TABLE["mounts"](config)
    config["linux"].update({**USERNS, "resources": {"pids": {"limit": 5}, "cpu": {"shares": 100}}})
    config["hooks"] = {"poststop": [{"path": "/bin/true", "env": ["A=b"], "timeout": 3}]}
    config["annotations"] = {"com.example.key": "b"}
    config["root"]["path"] = "rootfs"
    config["ociVersion"] = VERSION
    # One place of each kind: more of the same would only take time.
    del config["mounts"][1:-1], config["process"]["capabilities"]["effective"][1:]
    names, texts, bundles = [], [], []
    for number, (name, changed) in enumerate([("as it is", config), *spoilt(config)]):
        place = tmp_path / str(number)
        (place / "rootfs").mkdir(parents=True)
        text = json.dumps(changed)
        (place / "config.json").write_text(text)
        names.append(name)
        texts.append(text)
        bundles.append(place)
    found = validator(bundles)
    assert (found[0], refusal(texts[0])) == ([], "")
    accepted = []
    for name, text, rules in zip(names, texts, found, strict=True):
        theirs = [rule for rule in rules if not any(words in rule for words in NOT_OURS)]
        if theirs and not refusal(text):
            accepted.append(f"{name}: {theirs}")
    assert not accepted, "\n".join(accepted)
