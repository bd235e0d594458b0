"""`corten map`: a command for many inputs, each in a fresh container."""

from __future__ import annotations

import os
import sys

from corten.cli.parser import Command, Group, Option, UsageError, parse
from corten.cli.run_options import GROUPS, options_of
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any

    from corten.cli.map_report import Quiet
    from corten.compute.jobs.state import Job


def _count(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit():
        raise UsageError(f"{name}: {text!r} is not a number")
    return int(text)


def _jobs(name: str, text: str) -> int:
    if not _count(name, text):
        raise UsageError(f"{name}: give at least 1")
    return int(text)


def _halt(name: str, text: str) -> str:
    if text not in ("never", "soon", "now"):
        raise UsageError(f"{name}: {text!r}: use never, soon or now")
    return text


_OWN = (
    Option(("--image",), "IMAGE", "Image of the containers (host)"),
    Option(("-a", "--arg-file"), "FILE", "Read inputs from the lines of a file; - is standard input", repeat=True),
    Option(("-0", "--null"), help="Inputs in files end with a NUL byte, not with the line"),
    Option(("-j", "--jobs"), "N", "At most so many at once; never more than fit the free CPUs and memory", read=_jobs),
    Option(("--retries",), "N", "Try a failed input so many times more (0)", read=_count),
    Option(("--halt",), "WHEN", "After a failure: never (go on), soon (begin no more), now (end all)", read=_halt),
    Option(("--output",), "DIR", "Write output to DIR/INPUT.out and .err; else it is shown when an input ends"),
    Option(("--account",), "FILE", "Write a row for each input to FILE.csv, .jsonl or .parquet"),
    Option(("--resume",), help="Do only what is not done by the account: an input is done when it ended with 0"),
)
_NOT_HERE = ("interactive", "tty", "rm", "summary", "name", "entrypoint")

COMMAND = Command(
    "corten map",
    "[OPTIONS] [INPUT...] -- COMMAND [ARG...]",
    "Run a command once for each input, each time in a new container. Inputs are words, the lines of a file (-a), or "
    "those of standard input.",
    (
        Group("Inputs and their account", _OWN),
        *(
            Group(group.title, tuple(option for option in group.options if option.key not in _NOT_HERE))
            for group in GROUPS
        ),
    ),
    """
In COMMAND {} is the input, {.} without its extension, {/} its last component,
{/.} that without its extension, {//} its directory, {#} its number. Without any
of them the input is added.
Limits hold for each container. Ctrl-C ends all; --resume goes on from there.
Exit code: 0: all is done; N: N inputs failed (101: more than 100); 125: corten
failed; 126, 127: the command cannot be executed, does not exist; 128+N: signal.
""",
    interspersed=True,
)


def run(words: Sequence[str]) -> int:
    """Run them; the exit code."""
    if "--" not in words:
        parse(COMMAND, words)  # it may be a wrong option, or --help
        raise UsageError("map needs a command after --, such as: corten map a.csv b.csv -- python score.py {}")
    at = list(words).index("--")
    values, inputs = parse(COMMAND, words[:at])
    template = tuple(words[at + 1 :])
    if not template:
        raise UsageError("map needs a command after --")
    own = {option.key: values.pop(option.key, None) for option in _OWN}
    if own["resume"] and not own["account"]:
        raise UsageError("--resume needs --account: that says what is done")
    if inputs and own["arg_file"]:
        raise UsageError("give inputs as words or with -a, not both")
    options = _options(own["image"], values, template)
    return _map(own, options, template, inputs)


def _options(image: str | None, values: dict[str, Any], template: tuple[str, ...]) -> Any:
    if "rootfs" in values:
        if image is not None:
            raise UsageError("give --image or --rootfs, not both")
        values.setdefault("writable", "throwaway")  # many at once must not write into one directory
        return options_of(values, list(template))
    return options_of(values, [image or "host", *template])


def _map(own: dict[str, Any], options: Any, template: tuple[str, ...], inputs: list[str]) -> int:
    from contextlib import ExitStack

    from corten.compute.jobs import words
    from corten.compute.jobs.account import Account
    from corten.compute.jobs.runner import Runner
    from corten.compute.jobs.state import Job

    with ExitStack() as opened:
        account = opened.enter_context(Account(own["account"], bool(own["resume"]))) if own["account"] else None
        found = words.items(inputs or _read(own["arg_file"] or ["-"], bool(own["null"])))
        if account is not None:
            account.check(item.text for item in found)
        job = Job(found, own["retries"] or 0, own["halt"] or "never", account.rows if account else ())
        stop, caught = opened.enter_context(_Signals())
        listener = opened.enter_context(_listener(job, stop))
        Runner(
            job, options, template, listener, most=own["jobs"], directory=own["output"], account=account, stop=stop
        ).run()
    if caught:
        return 128 + caught[0]
    return job.exit_code()


def _read(files: list[str], by_nul: bool) -> Iterator[str]:
    from corten.compute.jobs import words

    for file in files:
        try:
            if file == "-":
                if sys.stdin is None:
                    raise InvalidInput("no inputs: standard input is closed")
                if os.isatty(0):
                    sys.stderr.write("corten: inputs are read from the terminal, a line each: Ctrl-D ends them\n")
                data = sys.stdin.buffer.read()
            else:
                with open(file, "rb") as opened:
                    data = opened.read()
        except OSError as error:
            raise InvalidInput(f"cannot read inputs from {file}: {error.strerror}") from None
        yield from words.read_inputs(data, by_nul)


def _listener(job: Job, stop: int) -> Quiet:
    if os.isatty(2) and os.environ.get("TERM", "dumb") != "dumb":
        from corten.cli.map_progress import Live

        return Live(job, stop)
    from corten.cli.map_report import Quiet

    return Quiet(job, stop)


class _Signals:
    """Signals that end everything: a descriptor that becomes readable, and the numbers of those that came."""

    def __enter__(self) -> tuple[int, list[int]]:
        import signal

        self._caught: list[int] = []
        self._read, self._write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._before: list[tuple[Any, Any]] = []
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup, or the background of a script
                self._before.append((number, signal.signal(number, self._catch)))
        return self._read, self._caught

    def _catch(self, number: int, _: object) -> None:
        self._caught.append(number)
        if len(self._caught) == 1:
            os.write(self._write, b"!")

    def __exit__(self, *_: object) -> None:
        import signal

        for number, before in self._before:
            signal.signal(number, before)
        os.close(self._read)
        os.close(self._write)

