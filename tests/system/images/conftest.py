"""What tests of images share: a registry, an empty store, and nothing of this machine's own configuration."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from corten.images.store.images import Store
from images_lab import Server


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A registry for everybody, without TLS."""
    started = Server(tmp_path_factory.mktemp("registry"))
    yield started
    started.close()


@pytest.fixture(autouse=True)
def nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No credentials and no configuration of this machine, and none of its proxies."""
    for name in ("DOCKER_CONFIG", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(tmp_path / "auth.json"))
    monkeypatch.setenv("CORTEN_REGISTRIES", str(tmp_path / "registries.toml"))
    (tmp_path / "registries.toml").write_text("")
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store, which commands use too."""
    monkeypatch.setenv("CORTEN_HOME", str(tmp_path / "own"))
    return Store(str(tmp_path / "own"))
