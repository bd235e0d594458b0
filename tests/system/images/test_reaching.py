"""How a registry is reached: proxies, certificates of both sides, and what goes without TLS."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.errors import Error, InvalidInput
from corten.images.registry import client
from corten.images.registry.client import Registry
from corten.images.registry.configuration import Settings, load
from corten.images.registry.pulling import pull
from corten.images.registry.pushing import push
from corten.images.store.images import Store
from images_lab import NAMED, Server, image
from registry_fronts import Proxy


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry with TLS that wants a certificate of its clients."""
    started = Server(tmp_path_factory.mktemp("guarded"), tls=True, clients=True)
    yield started
    started.close()


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_WAIT", 0.001)


def configure(tmp_path: Path, host: str, **values: object) -> None:
    lines = (f"{key} = {'true' if value is True else repr(str(value))}" for key, value in values.items())
    (tmp_path / "registries.toml").write_text("\n".join((f'[registry."{host}"]', *lines, "")))


def mine(server: Server, tmp_path: Path, host: str = "") -> None:
    where = server.directory
    configure(tmp_path, host or server.host, ca=server.ca, certificate=where / "own.crt", key=where / "own.key")


def why(host: str, kind: type[Error] = Error) -> str:
    """The one line with which a registry is not reached."""
    with pytest.raises(kind) as caught, Registry(load().settings(host)) as registry:
        registry.check()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_registry_that_wants_a_certificate_of_ours(guarded: Server, store: Store, tmp_path: Path) -> None:
    configure(tmp_path, guarded.host, ca=guarded.ca)
    said = why(guarded.host)
    assert "wants a certificate of ours" in said
    assert f'certificate and key under [registry."{guarded.host}"] in registries.toml' in said
    mine(guarded, tmp_path)
    made = image(store, f"{guarded.host}/closed")
    assert push(store, made.names[0], made.names[0]) == made.digest
    assert pull(Store(str(tmp_path / "other")), made.names[0]).manifest.digest == made.digest
    # One of an authority that the registry does not know.
    (tmp_path / "strange").mkdir()
    stranger = Server(tmp_path / "strange", tls=True)
    stranger.close()
    configure(
        tmp_path, guarded.host, ca=guarded.ca, certificate=f"{stranger.directory}/own.crt",
        key=f"{stranger.directory}/own.key",
    )  # fmt: skip
    assert f"does not take the certificate {stranger.directory}/own.crt" in why(guarded.host)


def test_certificates_where_docker_and_podman_have_them(
    guarded: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for place in (".docker/certs.d", ".config/containers/certs.d"):
        own = tmp_path / place / guarded.host
        own.mkdir(parents=True)
        for theirs, ours in (("ca.crt", "ca.crt"), ("own.crt", "client.cert"), ("own.key", "client.key")):
            (own / ours).write_bytes((guarded.directory / theirs).read_bytes())
        with Registry(load().settings(guarded.host)) as registry:
            registry.check()
        for file in own.iterdir():
            file.unlink()
        assert "not trusted" in why(guarded.host)


def test_certificates_that_are_none(guarded: Server, tmp_path: Path) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    configure(tmp_path, guarded.host, ca=tmp_path / "junk.pem")
    assert "junk.pem: cannot be used as a certificate" in why(guarded.host, InvalidInput)
    configure(tmp_path, guarded.host, ca=tmp_path / "absent.pem")
    assert "absent.pem: no such file" in why(guarded.host, InvalidInput)


def test_a_proxy_leads_to_a_registry_with_tls(
    guarded: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine(guarded, tmp_path)
    made = image(store, f"{guarded.host}/proxied")
    push(store, made.names[0], made.names[0])
    mine(guarded, tmp_path, NAMED)
    proxy = Proxy(guarded.host, "ann:secret")
    try:
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:secret@{proxy.host}")
        record = pull(Store(str(tmp_path / "other")), f"{NAMED}/proxied")
        assert record.manifest.digest == made.digest
        assert proxy.asked
        assert set(proxy.asked) == {f"CONNECT {NAMED}:443"}
        # Who it does not know.
        monkeypatch.setenv("HTTPS_PROXY", f"http://ann:wrong@{proxy.host}")
        said = why(NAMED)
        assert "the proxy says 407" in said
        assert "wrong" not in said
        # Never for this machine, and not where it is told off.
        proxy.asked.clear()
        mine(guarded, tmp_path)
        with Registry(load().settings(guarded.host)) as registry:
            registry.check()
        monkeypatch.setenv("NO_PROXY", f"other.example,{NAMED}")
        assert "there is no such host" in why(NAMED)
        assert proxy.asked == []
    finally:
        proxy.close()
    monkeypatch.delenv("NO_PROXY")
    said = why(NAMED)
    assert f"the proxy {proxy.host}: " in said
    assert "refused" in said
    assert "wrong" not in said


def test_a_proxy_leads_to_a_registry_without_tls(
    server: Server, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = image(store, f"{server.host}/plainly")
    push(store, made.names[0], made.names[0])
    proxy = Proxy(server.host)
    try:
        monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
        configure(tmp_path, NAMED, http=True)
        record = pull(Store(str(tmp_path / "other")), f"{NAMED}/plainly")
        assert record.manifest.digest == made.digest
        assert f"GET http://{NAMED}/v2/" in proxy.asked
    finally:
        proxy.close()


@pytest.mark.parametrize("value", ["ftp://proxy.example", "http://proxy.example:port", "gopher"])
def test_a_proxy_that_is_none(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", value)
    said = why("registry.example")
    assert "proxy" in said, said


def test_no_tls_elsewhere_unless_it_is_configured(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A registry without TLS under a name that is not of this machine: a proxy leads there."""
    proxy = Proxy(server.host)
    try:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{proxy.host}")
        said = why(NAMED)
        assert f'speaks plain HTTP: if that is meant, write http = true under [registry."{NAMED}"]' in said
        assert {line.partition(" ")[0] for line in proxy.asked} == {"CONNECT"}
    finally:
        proxy.close()
    for name in ("localhost", "127.0.0.1"):
        with Registry(Settings(f"{name}:{server.host.partition(':')[2]}")) as registry:
            registry.check()
