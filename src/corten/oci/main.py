"""The command `corten-oci`: runc's command line, for podman, containerd, CRI-O and people.

Rule 1: a command's module is imported when it is called, and not before; `state`, which is polled, loads least.
Rule 2: an error is one line: with `--log` there (as JSON if asked), and on stderr. Success writes no line.
Rule 3: the exit code of an error is 1; of `exec` 255; `run` and `exec` end as their program does.
"""

from __future__ import annotations

import os
import sys

from corten.output import OutputError, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

# name: (module with `run(settings, words) -> int`, one line for --help)
COMMANDS = {
    "checkpoint": ("corten.oci.criu", "Save a running container to files, with criu"),
    "create": ("corten.oci.create", "Make a container that waits for 'start'"),
    "delete": ("corten.oci.delete", "Remove a container"),
    "events": ("corten.oci.events", "Show resource use, and when memory runs out"),
    "exec": ("corten.oci.exec_", "Run another program in a container"),
    "features": ("corten.oci.features", "Show what this runtime can do, as JSON"),
    "kill": ("corten.oci.kill", "Send a signal to a container"),
    "list": ("corten.oci.list_", "List containers"),
    "pause": ("corten.oci.freeze", "Stop all processes of a container for a while"),
    "ps": ("corten.oci.ps", "Show the processes of a container"),
    "restore": ("corten.oci.criu", "Bring a saved container back, with criu"),
    "resume": ("corten.oci.freeze", "Let the processes of a paused container go on"),
    "run": ("corten.oci.run", "Make a container and start it"),
    "spec": ("corten.oci.spec", "Write a config.json to begin with"),
    "start": ("corten.oci.start", "Start the program of a created container"),
    "state": ("corten.oci.state", "Show the state of a container, as JSON"),
    "update": ("corten.oci.update", "Change the resources of a container"),
}
_VALUES = ("--log", "--log-format", "--log-level", "--root", "--rootless", "--criu", "--cgroup-manager")
_SWITCHES = ("--debug", "--systemd-cgroup")
_HELP = """\
Usage: corten-oci [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS]

An OCI runtime, with the command line of runc.

Commands:
{commands}

Global options:
  --root DIR                 Where containers are kept (default: /run/corten, or $XDG_RUNTIME_DIR/corten)
  --log FILE                 Write errors and warnings there too
  --log-format text|json     How (default: text)
  --log-level LEVEL          error, warning or debug (default: warning in a log)
  --debug                    The same as --log-level debug
  --systemd-cgroup           Let systemd make the control group
  --cgroup-manager NAME      cgroupfs, systemd or disabled
  --rootless true|false|auto Accepted; what we may do is asked of the kernel
  --version                  The version
"""


class Settings:
    """The global options. command: the one that runs."""

    def __init__(self) -> None:
        self.root = ""
        self.log = ""
        self.log_format = "text"
        self.log_level = ""
        self.systemd_cgroup = False
        self.cgroups = True
        self.command = ""

    def warn(self, message: str) -> None:
        """Log a warning; to stderr only if a level was asked for: it may be the container's own."""
        if self.log_level != "error" and (self.log or self.log_level):
            from corten.oci.log import report

            report(self, "warning", message)


class GlobalError(Exception):
    """The global options are wrong."""


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    settings = Settings()
    try:
        code = _dispatch(settings, list(sys.argv[1:] if words is None else words))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # what reads us has gone
        return 141
    except Exception as error:
        if os.environ.get("CORTEN_DEBUG"):
            raise
        from corten.oci.log import fail

        try:
            sys.stdout.flush()  # what was printed comes before the error
        except (OSError, OutputError):
            pass
        return fail(settings, error)


def command() -> NoReturn:
    """The program: `main`, and the end without the interpreter's tidying, which costs 2 ms."""
    prepare()
    name = next((word for word in sys.argv[1:] if word in COMMANDS), "")
    together = None
    if name and name != "state":  # which imports so little that this would cost more
        from corten.startup import Together

        together = Together(f"corten-oci-{name}")
    code = main()
    if together is not None and not code:
        together.keep()
    os._exit(code)


def _dispatch(settings: Settings, words: list[str]) -> int:
    rest = _globals(settings, words)
    name = rest[0] if rest else "--help"
    if name in ("--help", "-h", "help"):
        sys.stdout.write(_HELP.format(commands="\n".join(f"  {n:<11} {line}" for n, (_, line) in COMMANDS.items())))
        return 0
    if name in ("--version", "-v"):
        from corten import __version__

        # go-runc reads these lines
        sys.stdout.write(f"runc version {__version__} (corten-oci)\ncommit: corten-{__version__}\nspec: 1.3.0\n")
        return 0
    settings.command = name
    if name not in COMMANDS:
        raise GlobalError(f"unknown command {name!r}: see 'corten-oci --help'")
    if not settings.root:
        from corten.engine.oci_state import default_root

        settings.root = default_root()
    module = __import__(COMMANDS[name][0], fromlist=["run"])
    code: int = module.run(settings, rest[1:])
    return code


def _globals(settings: Settings, words: list[str]) -> list[str]:
    """Take the global options; the words from the command on. They may be repeated: the last one holds."""
    at = 0
    while at < len(words) and words[at][:1] == "-" and words[at] not in ("--help", "-h", "--version", "-v"):
        name, equals, value = words[at].partition("=")
        if name[:2] != "--":
            name = "-" + name  # as Go programs allow
        at += 1
        if name in _SWITCHES:
            if name == "--debug":
                settings.log_level = "debug"
            else:
                settings.systemd_cgroup = value.lower() not in ("false", "0", "f") if equals else True
            continue
        if name not in _VALUES:
            raise GlobalError(f"unknown option {name}: see 'corten-oci --help'")
        if not equals:
            if at >= len(words):
                raise GlobalError(f"flag needs an argument: {name}")
            value = words[at]
            at += 1
        _set(settings, name, value)
    return words[at:]


def _set(settings: Settings, name: str, value: str) -> None:
    if name == "--root":
        settings.root = os.path.abspath(value)
        if settings.root == "/":
            raise GlobalError("--root /: name a directory of its own")
    elif name == "--log":
        kind, colon, rest = value.partition(":")
        if colon and kind in ("journald", "syslog"):
            raise GlobalError(f"--log {value}: only files are written")
        settings.log = os.path.abspath(rest if colon and kind == "file" else value)
    elif name == "--log-format":
        if value not in ("text", "json"):
            raise GlobalError(f"--log-format: unknown format {value!r}: text or json")
        settings.log_format = value
    elif name == "--log-level":
        settings.log_level = value
    elif name == "--cgroup-manager":
        if value not in ("cgroupfs", "systemd", "disabled"):
            raise GlobalError(f"--cgroup-manager: unknown manager {value!r}: cgroupfs, systemd or disabled")
        settings.systemd_cgroup, settings.cgroups = value == "systemd", value != "disabled"
