"""The decisions of `corten-oci`: status table, state file, ids, global options, what each command loads."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import corten
from corten.engine import cgroup_path, lifecycle, oci_state
from corten.errors import CommandNotFound, CommandNotRunnable, InvalidInput, KernelError, NotFound, Unsupported
from corten.linux.cgroup.layout import Hierarchy, Layout
from corten.oci import events, log, main, table, update
from corten.runtime.steps import scheduling

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

SOURCE = str(Path(corten.__file__).parents[1])
STATUSES = ("creating", "created", "running", "pausing", "paused", "stopped")

# What the specification and runc say: the statuses in which a command is allowed.
ALLOWED = {
    "start": {"created"},
    "kill": {"created", "running", "paused", "pausing"},
    "pause": {"created", "running"},
    "resume": {"paused", "pausing"},
    "exec": {"created", "running"},
    "update": {"created", "running", "paused", "pausing"},
    "ps": {"created", "running", "paused", "pausing"},
    "events": {"created", "running", "paused", "pausing"},
    "checkpoint": {"running", "paused", "pausing"},
    "delete": {"created", "stopped"},
}


@pytest.mark.parametrize("command", ALLOWED)
@pytest.mark.parametrize("status", STATUSES)
def test_transitions(command: str, status: str) -> None:
    if status in ALLOWED[command]:
        lifecycle.check(command, "id", status)
    else:
        with pytest.raises(lifecycle.WrongStatus) as refused:
            lifecycle.check(command, "id", status)
        assert "{" not in str(refused.value)


def test_table_is_whole() -> None:
    assert set(lifecycle.REFUSALS) == set(ALLOWED)
    assert all(set(row) <= set(STATUSES) for row in lifecycle.REFUSALS.values())


@pytest.mark.parametrize("identity", ["a", "A-b_c.d+e", "0", "x" * 1024])
def test_ids(identity: str) -> None:
    assert oci_state.directory("/root", identity) == f"/root/{identity}"


@pytest.mark.parametrize("identity", ["", ".", "..", ".hidden", "a/b", "../a", "a b", "a\n", "\u00e9", "x" * 1025])
def test_bad_ids(identity: str) -> None:
    with pytest.raises(InvalidInput, match="invalid container id"):
        oci_state.directory("/root", identity)


def state_of(pid: int, start: int, status: str = "created", launcher: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    ours = {"start": start, "launcher": list(launcher), "group": [], "hooks": [], "pid_namespace": True}
    return {"ociVersion": "1.3.0", "id": "x", "pid": pid, "status": status, "corten": ours}


def test_status_of_real_processes(tmp_path: Path) -> None:
    path, me = str(tmp_path), os.getpid()
    start = oci_state.process_start(me)
    assert oci_state.status(path, state_of(me, start)) == "running"
    (tmp_path / "exec.fifo").touch()
    assert oci_state.status(path, state_of(me, start)) == "created"
    assert oci_state.status(path, state_of(me, start - 1)) == "stopped"  # another process had the number
    assert oci_state.status(path, state_of(0, 0)) == "stopped"
    assert oci_state.status(path, state_of(0, 0, "creating", (me, start))) == "creating"
    assert oci_state.status(path, state_of(0, 0, "creating", (me, start + 1))) == "stopped"
    child = subprocess.Popen(["true"])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert oci_state.process_start(child.pid) == 0  # a zombie does not live
    child.wait()


def test_frozen_in_either_freezer(tmp_path: Path) -> None:
    me = os.getpid()
    state = state_of(me, oci_state.process_start(me))
    one, two = tmp_path / "v1", tmp_path / "v2"
    for place in (one, two):
        place.mkdir()
    state["corten"]["group"] = [[1, "freezer", str(one)], [2, "", str(two)]]
    for word, frozen, status in (
        ("THAWED", 0, "running"), ("FREEZING", 0, "pausing"), ("FROZEN", 0, "paused"), ("THAWED", 1, "paused"),
    ):  # fmt: skip
        (one / "freezer.state").write_text(f"{word}\n")
        (two / "cgroup.events").write_text(f"populated 1\nfrozen {frozen}\n")
        assert oci_state.status(str(tmp_path), state) == status


def test_state_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="does not exist"):
        oci_state.read(str(tmp_path))
    state = state_of(0, 0)
    oci_state.write(str(tmp_path), state)
    assert oci_state.read(str(tmp_path)) == state
    assert os.listdir(tmp_path) == ["state.json"]
    shown = oci_state.shown(str(tmp_path), state)
    assert ("corten" not in shown, shown["status"], shown["pid"]) == (True, "stopped", 0)
    for damage in ("", "{", "[]", "{}", '{"corten": 1}', '"x"'):
        (tmp_path / "state.json").write_text(damage)
        with pytest.raises(InvalidInput, match="not written by corten-oci"):
            oci_state.read(str(tmp_path))


def test_timestamp() -> None:
    assert oci_state.timestamp(86400 * 365) == "1971-01-01T00:00:00.000000000Z"


HYBRID = Layout(
    "hybrid",
    (
        Hierarchy(1, ("memory",), "/sys/fs/cgroup/memory", "/mine"),
        Hierarchy(1, ("name=systemd",), "/sys/fs/cgroup/systemd", "/"),
    ),
)


def test_group_paths_leave_nothing_to_chance() -> None:
    with pytest.raises(InvalidInput, match=r'linux.cgroupsPath: "/a/../b" leaves'):
        cgroup_path.place(HYBRID, "/a/../b", "id", ())
    named = Layout("v1", HYBRID.hierarchies[1:])
    for path, wanted in (("", "/id"), ("/a/b", "/a/b"), ("a/b", "/a/b"), ("a", "/a")):
        group = cgroup_path.place(named, path, "id", ())
        assert [own.path for own in group.dirs] == [f"/sys/fs/cgroup/systemd{wanted}"]
    with pytest.raises(Unsupported, match=r"linux.resources: .* pids"):
        cgroup_path.place(named, "", "id", ("pids",))


# --- command line


def taken(*words: str) -> tuple[main.Settings, list[str]]:
    settings = main.Settings()
    return settings, main._globals(settings, list(words))


def test_globals_may_be_repeated_and_stop_at_the_command() -> None:
    settings, rest = taken("--root", "/a", "--root=/b", "-log", "/l", "--log-format", "json", "--systemd-cgroup=false",
                           "--criu", "x", "kill", "--root", "c")  # fmt: skip
    assert (settings.root, settings.log, settings.log_format, settings.systemd_cgroup) == ("/b", "/l", "json", False)
    assert rest == ["kill", "--root", "c"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("--root",), "flag needs an argument: --root"),
        (("--root", "/"), "--root /"),
        (("--absent",), "unknown option --absent"),
        (("--log-format", "x"), "unknown format"),
        (("--cgroup-manager", "x"), "unknown manager"),
        (("--log", "journald:x"), "only files"),
    ],
)
def test_bad_globals(words: tuple[str, ...], error: str) -> None:
    with pytest.raises(main.GlobalError, match=error):
        taken(*words)


def test_every_command_is_there() -> None:
    for name, (module, _) in main.COMMANDS.items():
        assert hasattr(__import__(module, fromlist=["run"]), "run"), name


def test_words_of_callers() -> None:
    with pytest.raises(InvalidInput, match="flag needs an argument: --bundle"):
        table.parse(table.command("x", "ID", "", table.BUNDLE), ["--bundle"])
    assert "executable file not found in $PATH" in log.words_of(CommandNotFound("x: not found"))
    assert "open executable" in log.words_of(CommandNotRunnable("x: is a directory"))
    assert log.words_of(KernelError("mount x", 1)) == "mount x: Operation not permitted (EPERM)"
    assert "mistake in corten-oci" in log.words_of(ZeroDivisionError("x"))


@pytest.mark.parametrize(("text", "seconds"), [("5s", 5), ("100ms", 0.1), ("1m30s", 90), ("1.5h", 5400)])
def test_durations(text: str, seconds: float) -> None:
    assert events.duration("--interval", text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "0s", "5x", "-1s"])
def test_bad_durations(text: str) -> None:
    with pytest.raises(InvalidInput, match="--interval"):
        events.duration("--interval", text)


@pytest.mark.parametrize(
    ("text", "size"), [("1", 1), ("128M", 128 << 20), ("1gb", 1 << 30), ("1.5k", 1536), ("-1", -1), ("0", 0)]
)
def test_sizes(text: str, size: int) -> None:
    assert update.size("--memory", text) == size


@pytest.mark.parametrize("text", ["", "x", "m", "1q", "--1"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(InvalidInput, match="--memory"):
        update.size("--memory", text)


def test_lists_of_numbers() -> None:
    assert scheduling.numbers("0-2,7") == (0, 1, 2, 7)
    with pytest.raises(InvalidInput, match="not a list of numbers"):
        scheduling.numbers("0-x")


# --- what is loaded


def test_state_loads_next_to_nothing(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    oci_state.write(str(tmp_path / "x"), state_of(0, 0))
    script = (
        f"import sys; sys.path.insert(0, {SOURCE!r}); before = set(sys.modules)\n"
        "from corten.oci.main import main\n"
        f"assert main(['--root', {str(tmp_path)!r}, 'state', 'x']) == 0\n"
        "print(sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-I", "-c", script], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["status"] == "stopped"
    loaded = {name for name in eval(done.stderr) if name not in sys.builtin_module_names}
    assert loaded <= {
        "__future__", "_json", "corten", "corten.engine", "corten.engine.oci_state", "corten.errors",
        "corten.json_text", "corten.oci", "corten.oci.main", "corten.oci.state", "corten.output",
    }  # fmt: skip
