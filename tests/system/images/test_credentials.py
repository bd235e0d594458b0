"""Where credentials come from and where `corten login` keeps them: files of docker and podman, and their helpers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from corten.errors import Error, InvalidInput
from corten.images.registry import credentials
from images_lab import PASSWORD, USER, Server

Command = Callable[..., subprocess.CompletedProcess[str]]
DOCKER = "https://index.docker.io/v1/"


def auth(user: str, password: str = "x") -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def write(path: Path, **data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def who(registry: str, repository: str = "") -> str:
    found = credentials.find(registry, repository)
    return found.user if found else ""


def test_the_first_file_that_knows_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG"):
        monkeypatch.setenv(name, str(tmp_path / name))
    places = [tmp_path / "auth.json", tmp_path / "XDG_CONFIG_HOME/corten/auth.json",
              tmp_path / "XDG_RUNTIME_DIR/containers/auth.json", tmp_path / "XDG_CONFIG_HOME/containers/auth.json",
              tmp_path / "DOCKER_CONFIG/config.json"]  # fmt: skip
    for place in reversed(places):
        write(place, auths={"r.example": auth(place.parent.name)})
        assert who("r.example") == place.parent.name
        assert who("other.example") == ""
    write(places[0], auths={"other.example": auth("else")})
    assert who("r.example") == "corten"
    # Without variables the files are where docker and podman look.
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for name in ("XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "DOCKER_CONFIG", "REGISTRY_AUTH_FILE"):
        monkeypatch.delenv(name)
    for name in (".docker/config.json", ".config/containers/auth.json", ".config/corten/auth.json"):
        write(tmp_path / "home" / name, auths={"r.example": auth(name.replace("/", "-"))})
        assert who("r.example") == name.replace("/", "-")


def test_the_most_specific_entry_counts(tmp_path: Path) -> None:
    write(
        tmp_path / "auth.json",
        auths={
            "r.example": auth("all"), "r.example/team": auth("team"), "r.example/team/app": auth("app"),
            "https://old.example/v1/": auth("old"), DOCKER: auth("hub"), "empty.example": {},
        },
    )  # fmt: skip
    assert who("r.example", "team/app") == "app"
    assert who("r.example", "team/app/deep") == "app"
    assert who("r.example", "team/other") == "team"
    assert who("r.example", "teams/other") == "all"
    assert who("old.example", "x") == "old"
    assert who("docker.io", "library/debian") == "hub"
    assert who("empty.example") == ""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("junk", "auth.json: is no JSON"),
        ("[]", "auth.json: is no JSON object"),
        ('{"auths": {"r.example": {"auth": "no base64!"}}}', "auths: r.example: auth is not base64 of USER:PASSWORD"),
        ('{"auths": {"r.example": {"auth": "YWJj"}}}', "auths: r.example: auth is not base64 of USER:PASSWORD"),
    ],
)
def test_a_file_that_is_wrong(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "auth.json").write_text(text)
    with pytest.raises(InvalidInput, match=words):
        credentials.find("r.example")


HELPER = """#!/bin/sh
dir=$(dirname "$0")/kept
mkdir -p "$dir"
case $1 in
store) cat > "$dir/new"
       name=$(sed 's/.*"ServerURL": "\\([^"]*\\)".*/\\1/; s,/,_,g' "$dir/new"); mv "$dir/new" "$dir/$name" ;;
get)   read server; cat "$dir/$(echo "$server" | sed s,/,_,g)" 2>/dev/null ||
       { echo credentials not found in native keychain; exit 1; } ;;
erase) read server; rm "$dir/$(echo "$server" | sed s,/,_,g)" 2>/dev/null ||
       { echo credentials not found in native keychain; exit 1; } ;;
esac
"""


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A helper called `test` that keeps what it is told in files; the directory of those."""
    place = tmp_path / "bin"
    place.mkdir()
    (place / "docker-credential-test").write_text(HELPER)
    (place / "docker-credential-test").chmod(0o755)
    (place / "docker-credential-bad").write_text("#!/bin/sh\necho the keychain is locked >&2; exit 3\n")
    (place / "docker-credential-bad").chmod(0o755)
    (place / "docker-credential-odd").write_text("#!/bin/sh\necho hello\n")
    (place / "docker-credential-odd").chmod(0o755)
    monkeypatch.setenv("PATH", f"{place}:{os.environ['PATH']}")
    return place / "kept"


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Server]:
    (tmp_path / "registry").mkdir()
    started = Server(tmp_path / "registry", auth=True)
    yield started
    started.close()


def test_login_and_logout_with_a_helper(
    guarded: Server, helper: Path, tmp_path: Path, command: Command
) -> None:
    login = ("login", "--username", USER, "--password-stdin", guarded.host)
    write(tmp_path / "auth.json", credHelpers={guarded.host: "test"})
    done = command(*login, stdin=None, input=PASSWORD)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"logged in to {guarded.host}, kept in docker-credential-test\n"
    assert PASSWORD not in (tmp_path / "auth.json").read_text()
    assert who(guarded.host) == USER
    assert command("logout", guarded.host).returncode == 0
    assert who(guarded.host) == ""
    again = command("logout", guarded.host)
    assert (again.returncode, again.stderr.count("\n")) == (125, 1)
    write(tmp_path / "auth.json", credsStore="bad")
    done = command(*login, stdin=None, input=PASSWORD)
    assert done.returncode == 125
    assert done.stderr.endswith("docker-credential-bad store: failed with 3: the keychain is locked\n")


def test_helpers_know_the_hub_by_its_old_name(helper: Path, tmp_path: Path) -> None:
    for data in ({"credsStore": "test"}, {"credHelpers": {DOCKER: "test"}}):
        write(tmp_path / "auth.json", **data)
        credentials.remember("docker.io", credentials.Credentials("ann", "x"))
        assert [path.name for path in helper.iterdir()] == [DOCKER.replace("/", "_")]
        assert who("docker.io", "library/debian") == "ann"
        assert credentials.forget("docker.io") == "docker-credential-test"
        assert who("docker.io") == ""


def test_helpers_that_fail(helper: Path, tmp_path: Path) -> None:
    assert not helper.exists()
    write(tmp_path / "auth.json", credHelpers={"a.example": "bad", "b.example": "odd", "c.example": "../odd"})
    with pytest.raises(Error, match="docker-credential-bad get: failed with 3: the keychain is locked"):
        credentials.find("a.example")
    with pytest.raises(Error, match="docker-credential-odd get: gave no answer that can be read"):
        credentials.find("b.example")
    with pytest.raises(InvalidInput, match=r"'\.\./odd': is a name, not a path"):
        credentials.find("c.example")


def test_a_file_of_others_is_kept_as_it_is(guarded: Server, tmp_path: Path, command: Command) -> None:
    """What docker has in its file besides credentials stays, and a file for everybody becomes ours alone."""
    write(tmp_path / "auth.json", auths={"other.example": auth("bob")}, HttpHeaders={"X": "y"})
    (tmp_path / "auth.json").chmod(0o644)
    login = ("login", "--username", USER, "--password-stdin", guarded.host)
    assert command(*login, stdin=None, input=PASSWORD).returncode == 0
    found = json.loads((tmp_path / "auth.json").read_text())
    assert found["HttpHeaders"] == {"X": "y"}
    assert set(found["auths"]) == {"other.example", guarded.host}
    assert (tmp_path / "auth.json").stat().st_mode & 0o777 == 0o600
    assert command("logout", guarded.host).returncode == 0
    assert set(json.loads((tmp_path / "auth.json").read_text())["auths"]) == {"other.example"}
