"""Which registries there are and how they are reached: one file for every command.

    CORTEN_REGISTRIES, or $XDG_CONFIG_HOME/corten/registries.toml (~/.config), or /etc/corten/registries.toml

    default = "registry.example"        what a name without a registry means (docker.io)

    [registry."docker.io"]
    mirrors = ["mirror.example:5000"]   asked first, in this order
    [registry."mirror.example:5000"]
    http = true                         without TLS; else only for this machine
    ca = "/etc/ssl/our-ca.pem"          trusted besides the system's, for this registry
    certificate = "me.pem"              shown to the registry, with its key
    key = "me.key"
    timeout = 30                        seconds without an answer

The certificates that docker and podman know (/etc/docker/certs.d/HOST, /etc/containers/certs.d/HOST) count, too.
"""

from __future__ import annotations

import os

from corten.errors import InvalidInput, errno_words
from corten.images.references import DEFAULT_REGISTRY
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TIMEOUT = 30.0
_CERTIFICATES = ("/etc/containers/certs.d", "/etc/docker/certs.d")


class Settings(Record):
    """How one registry is reached. authorities: files with certificates; timeout: seconds."""

    host: str
    mirrors: tuple[str, ...] = ()
    http: bool = False
    authorities: tuple[str, ...] = ()
    certificate: str = ""
    key: str = ""
    timeout: float = TIMEOUT


class Configuration(Record):
    """The file, read. `default`: the registry that is meant by names without one."""

    default: str = DEFAULT_REGISTRY
    registries: dict[str, Settings] = {}

    def settings(self, host: str) -> Settings:
        """How a registry is reached: what the file says, and certificates that are found."""
        known = self.registries.get(host, Settings(host))
        certificate, key = known.certificate, known.key
        authorities = list(known.authorities)
        home = os.path.expanduser("~")
        for place in (*_CERTIFICATES, f"{home}/.config/containers/certs.d", f"{home}/.docker/certs.d"):
            try:
                names = sorted(os.listdir(f"{place}/{host}"))
            except OSError:
                continue
            authorities += [f"{place}/{host}/{name}" for name in names if name.endswith(".crt")]
            for name in names:
                if name.endswith(".cert") and not certificate:
                    certificate, key = f"{place}/{host}/{name}", f"{place}/{host}/{name[:-5]}.key"
        return known.replace(authorities=tuple(authorities), certificate=certificate, key=key)


def path() -> str:
    """The file that counts, "" if there is none."""
    own = os.environ.get("CORTEN_REGISTRIES")
    if own:
        return own
    base = os.environ.get("XDG_CONFIG_HOME") or os.path.join(os.path.expanduser("~"), ".config")
    for place in (f"{base}/corten/registries.toml", "/etc/corten/registries.toml"):
        if os.path.exists(place):
            return place
    return ""


def load() -> Configuration:
    """Read the file. InvalidInput: it is malformed, or names what is not known."""
    place = path()
    if not place:
        return Configuration()
    import tomllib

    try:
        with open(place, "rb") as file:
            found = tomllib.load(file)
    except OSError as error:
        raise InvalidInput(f"{place}: cannot be read: {errno_words(error.errno or 0)}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InvalidInput(f"{place}: {error}") from None
    default = found.pop("default", DEFAULT_REGISTRY)
    tables = found.pop("registry", {})
    if found:
        raise InvalidInput(f"{place}: {next(iter(found))!r} is unknown: there are default and [registry.\"NAME\"]")
    if not isinstance(default, str) or not default or not isinstance(tables, dict):
        raise InvalidInput(f"{place}: default is the name of a registry, and registry a table")
    return Configuration(default, {host: _settings(place, host, table) for host, table in tables.items()})


_KINDS: dict[str, tuple[type, ...]] = {
    "mirrors": (list,), "http": (bool,), "ca": (str,), "certificate": (str,), "key": (str,), "timeout": (int, float),
}  # fmt: skip


def _settings(place: str, host: str, table: Any) -> Settings:
    where = f'{place}: registry."{host}"'
    if not isinstance(table, dict):
        raise InvalidInput(f"{where}: is not a table")
    for key, value in table.items():
        if key not in _KINDS:
            raise InvalidInput(f"{where}: {key!r} is unknown: there are {', '.join(_KINDS)}")
        number = key != "timeout" or (isinstance(value, (int, float)) and value is not True and value > 0)
        if not (number and isinstance(value, _KINDS[key])):
            raise InvalidInput(f"{where}: {key}: {value!r} is not of the right kind")
    mirrors = table.get("mirrors", [])
    if not all(isinstance(mirror, str) and mirror and "/" not in mirror for mirror in mirrors):
        raise InvalidInput(f"{where}: mirrors: a list of registries such as mirror.example:5000")
    here = os.path.dirname(os.path.abspath(place))
    files = {key: os.path.join(here, table[key]) for key in ("ca", "certificate", "key") if table.get(key)}
    for key, file in files.items():
        if not os.path.isfile(file):
            raise InvalidInput(f"{where}: {key}: {file}: no such file")
    return Settings(
        host, tuple(mirrors), table.get("http", False), (files["ca"],) if "ca" in files else (),
        files.get("certificate", ""), files.get("key", ""), float(table.get("timeout", TIMEOUT)),
    )  # fmt: skip


def is_local(host: str) -> bool:
    """Whether a registry is on this machine, by its name: then it may do without TLS."""
    name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() and not host.endswith("]") else host
    return name in ("localhost", "[::1]") or name.endswith(".localhost") or _is_loopback(name)


def _is_loopback(name: str) -> bool:
    parts = name.split(".")
    return len(parts) == 4 and parts[0] == "127" and all(part.isdigit() and int(part) < 256 for part in parts)
