"""The command `corten`.

Rule 1: a command's module is imported when it is called, and not before.
Rule 2: an error is one line on stderr that begins with `corten: `; the exit code is the error's own.
"""

from __future__ import annotations

import os
import sys

from corten.errors import Error, errno_words, printable
from corten.output import OutputError, prepare

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# name: (module with `run(words) -> int`, one line for --help)
COMMANDS = {
    "build": ("corten.cli.build", "Build an image from a Containerfile"),
    "cgroups": ("corten.cli.cgroups", "Show the trees of control groups, their limits and hot spots"),
    "doctor": ("corten.cli.doctor", "Tell what of this machine stands in the way of containers"),
    "explain": ("corten.cli.explain", "Tell what a container or process is shut off from, and what not"),
    "image": ("corten.cli.image", "Images: pull, push, ls, inspect, history, tag, rm, prune, save, load, import"),
    "login": ("corten.cli.login", "Log in to a registry"),
    "logout": ("corten.cli.logout", "Forget the credentials for a registry"),
    "map": ("corten.cli.map", "Run a command for many inputs, each in a container of its own"),
    "namespaces": ("corten.cli.namespaces", "Show which processes share which namespaces"),
    "plan": ("corten.cli.plan", "Show what 'run' would do, step by step"),
    "run": ("corten.cli.run", "Run a command in a new container"),
    "stats": ("corten.cli.stats", "Show or draw what containers use"),
    "system": ("corten.cli.system", "df: what Corten keeps on disk"),
    "top": ("corten.cli.top", "Watch containers live: processes, limits, pressure"),
}

# What docker and podman call the commands of `corten image`.
SHORT = {
    "images": "ls", "history": "history", "tag": "tag", "rmi": "rm", "pull": "pull", "push": "push", "save": "save",
    "load": "load", "import": "import",
}  # fmt: skip


def main(words: Sequence[str] | None = None) -> int:
    """Run the command line; the exit code."""
    try:
        code = _dispatch(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
    except Error as error:
        return _fail(str(error), error.exit_code)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # what reads us has gone
        return 141
    except Exception as error:
        if os.environ.get("CORTEN_DEBUG"):
            raise
        return _fail(_shortage(error) or _unexpected(error), Error.exit_code)
    return code


def command() -> None:
    """The console script: `main`, and the end without the interpreter's tidying, which is 1.7 ms (measured)."""
    prepare()
    together = None
    if sys.argv[1:2] and sys.argv[1] in COMMANDS:
        from corten.startup import Together

        together = Together(f"corten-{sys.argv[1]}")
    code = main()
    if together is not None and not code:
        together.keep()
    sys.stderr.flush()
    os._exit(code)


def _dispatch(words: Sequence[str]) -> int:
    name = words[0] if words else "--help"
    if name in ("--help", "-h", "help"):
        return _help(words[1:])
    if name in ("--version", "-v"):
        from corten import __version__

        sys.stdout.write(f"corten {__version__}\n")
        return 0
    if name in SHORT:
        return _dispatch(["image", SHORT[name], *words[1:]])
    if name not in COMMANDS:
        raise _unknown(name)
    module = __import__(COMMANDS[name][0], fromlist=["run"])
    from corten.cli.parser import HelpWanted

    try:
        code: int = module.run(words[1:])
    except HelpWanted as wanted:
        from corten.cli import help as pages

        sys.stdout.write(pages.render(wanted.command, pages.width()))
        return 0
    return code


def _help(words: Sequence[str]) -> int:
    if words and words[0] not in ("--help", "-h"):
        return _dispatch([*words[:1], "--help"])
    commands = "\n".join(f"  {name:<10} {line}" for name, (_, line) in sorted(COMMANDS.items()))
    sys.stdout.write(
        "Usage: corten COMMAND [OPTIONS]\n\n"
        "Containers without a daemon, from the shell and from Python.\n\n"
        f"Commands:\n{commands}\n\n"
        f"Short for 'corten image …': {', '.join(SHORT)}.\n\n"
        "Options:\n  --help     This text; 'corten COMMAND --help' for a command\n  --version  The version\n\n"
        "Try: corten run --memory 256m --cpus 1 host python3 -c 'print(6 * 7)'\n"
    )
    return 0


def _unknown(name: str) -> Error:
    import difflib

    from corten.cli.parser import UsageError

    kind = "option" if name.startswith("-") else "command"
    if name == "export":  # which docker has for containers
        return UsageError("unknown command export: see 'corten image export'")
    near = difflib.get_close_matches(name, [*COMMANDS, *SHORT, "--help", "--version"], 1)
    return UsageError(f"unknown {kind} {name}: " + (f"did you mean {near[0]}?" if near else "see 'corten --help'"))


# What the machine can lack at any place: no mistake of ours.
_SHORTAGES = {
    "EMFILE": "this process may open no more files: raise its limit (ulimit -n)",
    "ENFILE": "the machine has no more files to open: raise the sysctl fs.file-max",
    "ENOSPC": "free some space",
    "EDQUOT": "free some space, or ask for a larger quota",
    "ENOMEM": "free some memory",
    "EIO": "the device does not answer: see dmesg",
}


def _shortage(error: Exception) -> str:
    import errno

    number = error.errno if isinstance(error, OSError) else None
    missing = str(error.filename) if isinstance(error, FileNotFoundError) else ""
    if missing.startswith(("/proc/", "/dev/", "/sys/")):
        top = missing[: missing.index("/", 1)]
        return f"{missing}: {errno_words(number or 0)}: is {top} mounted, and whole?"
    advice = _SHORTAGES.get(errno.errorcode.get(number or 0, ""))
    if number is None or advice is None:
        return ""
    what = error.filename  # type: ignore[attr-defined]
    return f"{what}: {errno_words(number)}: {advice}" if what else f"{errno_words(number)}: {advice}"


def _unexpected(error: Exception) -> str:
    words = " ".join(f"{type(error).__name__}: {error}".split())
    at = error.__traceback__
    while at and at.tb_next:
        at = at.tb_next
    where = f" ({os.path.basename(at.tb_frame.f_code.co_filename)}:{at.tb_lineno})" if at else ""
    return f"a mistake in corten itself: {words}{where}: please report it, with what CORTEN_DEBUG=1 prints"


def _fail(words: str, code: int) -> int:
    try:
        sys.stdout.flush()  # what was printed comes before the error
    except (OSError, OutputError):
        pass
    try:
        sys.stderr.write(f"corten: {printable(words)}\n")
        sys.stderr.flush()
    except OSError:
        pass  # nobody is there to read it; the exit code still says so
    return code
