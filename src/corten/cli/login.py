"""`corten login`: credentials for a registry, tried before they are kept."""

from __future__ import annotations

import os
import sys

from corten.cli.parser import Command, Group, Option, UsageError, parse
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

COMMAND = Command(
    "corten login",
    "[OPTIONS] [REGISTRY]",
    "Log in to a registry; default docker.io, or what registries.toml says. The credentials are tried, then kept.",
    (
        Group(
            "Options",
            (
                Option(("-u", "--username"), "NAME", "Who; asked for on a terminal"),
                Option(("--password-stdin",), help="Read the password from standard input"),
                Option(
                    ("-p", "--password"), "WORD",
                    refuse="others of this machine can read it in the list of processes: use --password-stdin",
                ),
            ),
        ),
    ),
    maximum=1,
    interspersed=True,
)  # fmt: skip


def run(words: Sequence[str]) -> int:
    """Log in; 0."""
    values, arguments = parse(COMMAND, words)
    from corten.images.registry import configuration, credentials
    from corten.images.registry.client import Registry

    settings = configuration.load()
    host = registry_name(arguments[0]) if arguments else settings.default
    user = values.get("username") or _ask("Username: ", hidden=False)
    password = sys.stdin.read().rstrip("\r\n") if values.get("password_stdin") else _ask("Password: ", hidden=True)
    if not user or not password or ":" in user:
        raise InvalidInput(f"login {host}: needs a user name without ':' and a password")
    own = credentials.Credentials(user, password, source="the command line")
    with Registry(settings.settings(host), find=lambda _host, _repository: own) as registry:
        registry.check()
    where = credentials.remember(host, own)
    sys.stdout.write(f"logged in to {host}, kept in {where}\n")
    return 0


def registry_name(text: str) -> str:
    """The name of a registry as people write it, perhaps with a scheme or a path behind it."""
    from corten.images.references import parse as parse_reference

    host = text.removeprefix("https://").removeprefix("http://").partition("/")[0]
    return parse_reference(f"{host if '.' in host or ':' in host else host + ':443'}/x").registry.removesuffix(":443")


def _ask(prompt: str, hidden: bool) -> str:
    if not os.isatty(0):
        raise UsageError("login: needs --username and --password-stdin where there is no terminal")
    if hidden:
        import getpass

        return getpass.getpass(prompt)
    return input(prompt).strip()
