"""Manifests, indexes and configurations from strangers: any bytes give a typed value or one clear line."""

from __future__ import annotations

import copy
import hashlib
import json
import tempfile
from functools import partial

from hypothesis import example, given, settings
from hypothesis import strategies as st

from corten.errors import InvalidInput
from corten.images import manifests
from corten.images.archives.loading import load
from corten.images.manifests import Config, Index, Manifest, Platform
from corten.images.store.images import Store
from layer_lab import Entry, tar_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BOUNDED = settings(max_examples=400)
DIGEST = "sha256:" + "0" * 64
LAYER = {"mediaType": manifests.LAYER_GZIP, "digest": DIGEST, "size": 3, "annotations": {"a": "b"}}
MANIFEST = {
    "schemaVersion": 2, "mediaType": manifests.MANIFEST, "annotations": {"x": "y"},
    "config": {"mediaType": manifests.CONFIG, "digest": DIGEST, "size": 2}, "layers": [LAYER, LAYER],
}  # fmt: skip
INDEX = {
    "schemaVersion": 2, "mediaType": manifests.INDEX,
    "manifests": [
        {"mediaType": manifests.MANIFEST, "digest": DIGEST, "size": 7,
         "platform": {"os": "linux", "architecture": "arm", "variant": "v7", "os.version": "1"}},
    ],
}  # fmt: skip
CONFIG = {
    "os": "linux", "architecture": "amd64", "variant": "v2", "created": "2024-01-01T00:00:00Z",
    "config": {
        "Env": ["A=1", "B"], "Entrypoint": ["e"], "Cmd": ["c"], "User": "u:g", "WorkingDir": "/w",
        "Volumes": {"/v": {}}, "StopSignal": "SIGTERM", "Labels": {"l": "1"},
    },
    "rootfs": {"type": "layers", "diff_ids": [DIGEST]},
    "history": [{"created": "2024-01-01T00:00:00Z", "created_by": "x", "empty_layer": True}, {"comment": "y"}],
}  # fmt: skip

strange = st.sampled_from(["\0", "\ud800", "\udcff", "\x1b[31m", "a\nb", "../..", "=", "", " "])
text = st.one_of(
    strange,
    st.text(max_size=8),
    st.sampled_from([DIGEST, "sha512:" + "f" * 128, "sha256:", "linux", "9" * 5000,
                     manifests.MANIFEST, manifests.INDEX, manifests.DOCKER_LIST, manifests.CONFIG]),
)  # fmt: skip
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.sampled_from([2**63, -1, 10**400, 1e400, float("nan"), 2.0]), text
)
json_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3), max_leaves=6
)


def places(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of all parts of JSON data."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, inner in items for place in places(inner, (*here, key)))]


@st.composite
def mutated(draw: st.DrawFn, model: Any) -> bytes:
    """JSON text of a good thing, up to three parts of which are something else, are missing, or have company."""
    value = copy.deepcopy(model)
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.sampled_from(places(value)))
        if not place:
            continue
        target = value
        for key in place[:-1]:
            target = target[key]
        kind = draw(st.sampled_from(["strange", "replace", "remove", "double"]))
        if kind in ("strange", "replace"):
            target[place[-1]] = draw(strange if kind == "strange" else json_values)
        elif kind == "remove":
            del target[place[-1]]
        elif isinstance(target, list):
            target.append(draw(json_values))
        else:
            target[draw(text)] = draw(json_values)
    return json.dumps(value, ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")


def bytes_of(*models: Any) -> st.SearchStrategy[bytes]:
    """Such texts, JSON of other things, pieces of good ones, and noise."""
    good = st.one_of([mutated(model) for model in models])
    return st.one_of(
        good, good, good,
        json_values.map(lambda value: json.dumps(value).encode()),
        st.tuples(good, st.integers(0, 400)).map(lambda pair: pair[0][: pair[1]]),
        st.binary(max_size=40),
        st.sampled_from([b"[" * 100_000, b'{"a":' * 50_000, b"9" * 10_000, b"\xef\xbb\xbf{}", b"{} {}"]),
    )  # fmt: skip


def taken(work: Callable[[], Any]) -> Any:
    """What it gives, or None for a refusal, which has to be one line that begins with the place."""
    try:
        return work()
    except InvalidInput as error:
        assert "\n" not in str(error)
        assert str(error).startswith("somewhere: "), error
        return None


def check_text(value: object) -> None:
    """All that the program, the kernel or a terminal could be given can be given to them."""
    if isinstance(value, str):
        assert "\0" not in value
        value.encode()
    elif isinstance(value, tuple | list):
        for item in value:
            check_text(item)
    elif isinstance(value, dict):
        for key, item in value.items():
            check_text(key)
            check_text(item)


@BOUNDED
@given(bytes_of(MANIFEST, INDEX), st.sampled_from(["", manifests.MANIFEST, manifests.DOCKER_LIST, "text/html; x"]))
@example(b"", "")
def test_any_bytes_are_a_manifest_an_index_or_refused(data: bytes, kind: str) -> None:
    found = taken(lambda: manifests.parse(data, "somewhere", kind))
    if found is None:
        return
    assert manifests.parse(manifests.serialise(found), "somewhere") == found
    if isinstance(found, Manifest):
        assert 0 <= len(found.layers) <= 500
        assert all(one.size >= 0 for one in (found.config, *found.layers))
        return
    assert isinstance(found, Index)
    for one in found.manifests:
        check_text(str(one.platform))
    for wanted in (Platform("linux", "arm"), Platform("linux", "arm", "v7"), manifests.own_platform()):
        chosen = taken(partial(manifests.choose, found, wanted, "somewhere"))
        assert chosen is None or chosen in found.manifests


@BOUNDED
@given(bytes_of(CONFIG))
@example(json.dumps(CONFIG).encode())
def test_any_bytes_are_a_configuration_or_refused(data: bytes) -> None:
    found = taken(lambda: manifests.parse_config(data, "somewhere"))
    if found is None:
        return
    assert isinstance(found, Config)
    for value in (found.env, found.entrypoint, found.cmd, found.user, found.workdir, found.volumes, found.stop_signal,
                  str(found.platform)):  # fmt: skip
        check_text(value)
    assert manifests.parse_config(json.dumps(found.raw).encode(), "somewhere").replace(raw={}) == found.replace(raw={})


LAYER_DATA = tar_bytes([Entry("file", "f", data=b"x")])
OWN_CONFIG = {**CONFIG, "rootfs": {"diff_ids": ["sha256:" + hashlib.sha256(LAYER_DATA).hexdigest()]}}


@settings(BOUNDED, max_examples=120)
@example(b'[{"Config": "a\\nb", "Layers": ["l"]}]', b"", False)
@given(bytes_of([{"Config": "c", "RepoTags": ["a:1", "b"], "Layers": ["l"]}]), bytes_of(OWN_CONFIG), st.booleans())
def test_any_docker_archive_gives_images_or_one_line(manifest: bytes, config: bytes, good: bool) -> None:
    """good: its configuration is."""
    config = json.dumps(OWN_CONFIG).encode() if good else config
    members = [Entry("file", "manifest.json", data=manifest), Entry("file", "c", data=config),
               Entry("file", "l", data=LAYER_DATA)]  # fmt: skip
    with tempfile.TemporaryDirectory() as home, tempfile.TemporaryFile() as file:
        file.write(tar_bytes(members))
        file.seek(0)
        store = Store(home, "docker.io")
        try:
            found = load(store, file.fileno())
        except InvalidInput as error:
            assert "\n" not in str(error)
            return
        assert found
        for image in found:
            assert store.lowers(image)


def test_the_good_ones_are_taken() -> None:
    """So that the laws above are about something."""
    assert isinstance(manifests.parse(json.dumps(MANIFEST).encode(), "somewhere"), Manifest)
    index = manifests.parse(json.dumps(INDEX).encode(), "somewhere")
    assert isinstance(index, Index)
    assert index.manifests[0].platform == Platform("linux", "arm", "v7")
    assert manifests.parse_config(json.dumps(CONFIG).encode(), "somewhere").env == ("A=1", "B")


@settings(max_examples=100)
@given(st.text(max_size=20))
def test_any_text_is_a_platform_or_refused(platform: str) -> None:
    try:
        found = manifests.parse_platform(platform)
    except InvalidInput as error:
        assert "\n" not in str(error)
        return
    assert manifests.parse_platform(str(found)) == found
