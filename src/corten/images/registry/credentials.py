"""Who we are to a registry: from the files of docker and podman, their helpers, and our own file.

Read in this order, the first entry that fits counts:
    REGISTRY_AUTH_FILE
    $XDG_CONFIG_HOME/corten/auth.json                where `corten login` writes, unless REGISTRY_AUTH_FILE says where
    $XDG_RUNTIME_DIR/containers/auth.json            podman, skopeo, buildah
    ~/.config/containers/auth.json
    $DOCKER_CONFIG/config.json, ~/.docker/config.json

Rule: a secret is in no error text, no argument list and no file that others may read.
Source of the formats: containers-auth.json(5); docker's credential helper protocol (docker-credential-NAME get).
"""

from __future__ import annotations

import base64
import json
import os

from corten.errors import Error, InvalidInput, errno_words
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_DOCKER = "https://index.docker.io/v1/"


class Credentials(Record):
    """A user and password, or a token to be exchanged for others (`identity`). source: where they come from."""

    user: str = ""
    password: str = ""
    identity: str = ""
    source: str = ""

    def __repr__(self) -> str:
        return f"Credentials(user={self.user!r}, source={self.source!r})"


def files() -> list[str]:
    """Where to look, in order."""
    environ, home = os.environ, os.path.expanduser("~")
    config = environ.get("XDG_CONFIG_HOME") or f"{home}/.config"
    found = [environ.get("REGISTRY_AUTH_FILE", ""), f"{config}/corten/auth.json"]
    if environ.get("XDG_RUNTIME_DIR"):
        found.append(f"{environ['XDG_RUNTIME_DIR']}/containers/auth.json")
    elif os.geteuid() == 0:
        found.append("/run/containers/0/auth.json")
    found += [f"{config}/containers/auth.json", f"{environ.get('DOCKER_CONFIG') or f'{home}/.docker'}/config.json"]
    return [path for path in found if path]


def own_file() -> str:
    """Where `login` writes."""
    return files()[0]


def find(registry: str, repository: str = "") -> Credentials | None:
    """What to show to a registry. InvalidInput: a file is malformed; Error: a helper failed."""
    for path in files():
        found = _in_file(path, registry, repository)
        if found:
            return found
    return None


def _in_file(path: str, registry: str, repository: str) -> Credentials | None:
    data = _read(path)
    named, server = _helper_for(data, registry)
    if named:
        found = _ask(named, server)
        if found:
            return found
    auths = data.get("auths", {})
    if isinstance(auths, dict):
        for key in _keys(registry, repository):
            entry = auths.get(key)
            if isinstance(entry, dict) and (entry.get("auth") or entry.get("identitytoken")):
                return _entry(path, key, entry)
    store = data.get("credsStore", "")
    return _ask(store, _server(registry)) if isinstance(store, str) and store else None


def _server(registry: str) -> str:
    """What docker calls a registry to its helpers."""
    return _DOCKER if registry == "docker.io" else registry


def _helper_for(data: dict[str, Any], registry: str) -> tuple[str, str]:
    """The helper of a registry and what it knows it as, by credHelpers; "" without one."""
    helpers = data.get("credHelpers", {})
    for key in (registry, _server(registry)):
        name = helpers.get(key) if isinstance(helpers, dict) else None
        if isinstance(name, str) and name:
            return name, key
    return "", ""


def _keeper(data: dict[str, Any], registry: str) -> tuple[str, str]:
    """The helper that keeps what `login` says, and what it knows the registry as; "": the file keeps it."""
    name, server = _helper_for(data, registry)
    return (name, server) if name else (str(data.get("credsStore") or ""), _server(registry))


def _read(path: str) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            data = json.load(file)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise InvalidInput(f"{path}: cannot be read: {errno_words(error.errno or 0)}") from None
    except ValueError as error:
        raise InvalidInput(f"{path}: is no JSON: {error}") from None
    if not isinstance(data, dict):
        raise InvalidInput(f"{path}: is no JSON object")
    return data


def _keys(registry: str, repository: str) -> list[str]:
    """The keys under which credentials may lie, the most specific first."""
    parts = repository.split("/") if repository else []
    keys = ["/".join([registry, *parts[:count]]) for count in range(len(parts), 0, -1)]
    keys += [registry, f"https://{registry}", f"https://{registry}/v1/", f"https://{registry}/v2/", f"http://{registry}"]
    return [*keys, _DOCKER, "index.docker.io"] if registry == "docker.io" else keys


def _entry(path: str, key: str, entry: dict[str, Any]) -> Credentials:
    user = password = ""
    if entry.get("auth"):
        try:
            user, colon, password = base64.b64decode(entry["auth"], validate=True).decode().rstrip("\0").partition(":")
        except (ValueError, TypeError):
            colon = ""
        if not colon:
            raise InvalidInput(f"{path}: auths: {key}: auth is not base64 of USER:PASSWORD: log in again")
    identity = entry.get("identitytoken", "")
    return Credentials(user, password, identity if isinstance(identity, str) else "", path)


def _ask(helper: str, server: str) -> Credentials | None:
    """What a credential helper knows; None if it knows nothing."""
    said = _helper(helper, "get", server)
    if said is None:
        return None
    try:
        found = json.loads(said)
        user, secret = found["Username"], found["Secret"]
    except (ValueError, KeyError, TypeError):
        raise Error(f"docker-credential-{helper} get: gave no answer that can be read") from None
    if user == "<token>":
        return Credentials(identity=secret, source=f"docker-credential-{helper}")
    return Credentials(user, secret, source=f"docker-credential-{helper}")


def _helper(helper: str, action: str, text: str) -> str | None:
    import subprocess

    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise InvalidInput(f"credential helper {helper!r}: is a name, not a path")
    try:
        done = subprocess.run([program, action], input=text, capture_output=True, text=True, check=False, timeout=60)
    except FileNotFoundError:
        raise Error(f"{program}: not found: install it, or take {helper!r} out of credHelpers and credsStore") from None
    except subprocess.TimeoutExpired:
        raise Error(f"{program} {action}: gave no answer in 60 s") from None
    if done.returncode:
        words = " ".join((done.stdout + done.stderr).split())
        if "not found" in words:
            return None
        raise Error(f"{program} {action}: failed with {done.returncode}: {words[:200]}")
    return done.stdout


def remember(registry: str, credentials: Credentials) -> str:
    """Keep what `login` has found good; where."""
    path = own_file()
    data = _read(path)
    helper, server = _keeper(data, registry)
    if helper:
        record = {"ServerURL": server, "Username": credentials.user, "Secret": credentials.password}
        if _helper(helper, "store", json.dumps(record)) is None:
            raise Error(f"docker-credential-{helper} store: did not keep the credentials for {registry}")
        return f"docker-credential-{helper}"
    pair = base64.b64encode(f"{credentials.user}:{credentials.password}".encode()).decode()
    data.setdefault("auths", {})[registry] = {"auth": pair}
    _write(path, data)
    return path


def forget(registry: str) -> str | None:
    """Undo `remember`; where from, None if nothing was kept there."""
    path = own_file()
    data = _read(path)
    helper, server = _keeper(data, registry)
    if helper:
        return f"docker-credential-{helper}" if _helper(helper, "erase", server) is not None else None
    if registry not in data.get("auths", {}):
        return None
    del data["auths"][registry]
    _write(path, data)
    return path


def _write(path: str, data: dict[str, Any]) -> None:
    draft = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path) or ".", 0o700, exist_ok=True)
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, (json.dumps(data, indent=2) + "\n").encode())
            os.fsync(fd)
        finally:
            os.close(fd)
        os.rename(draft, path)
    except OSError as error:
        raise Error(f"cannot write {path}: {errno_words(error.errno or 0)}") from None
