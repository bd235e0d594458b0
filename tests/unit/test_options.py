"""Options: read the same from text and from Python, normalised, and refused in one line when they make no sense."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corten.cli.parser import parse
from corten.cli.run import COMMAND
from corten.cli.run_options import GROUPS, options_of
from corten.engine import keywords
from corten.engine.mounts import MountOption
from corten.engine.option_readers import MANY, ONE
from corten.engine.option_values import UNLIMITED, Ulimit
from corten.engine.options import RunOptions, make
from corten.errors import Error, InvalidInput
from corten.linux.idmap import IdMapping


def typed(*words: str) -> RunOptions:
    """The options that a command line gives."""
    return options_of(*parse(COMMAND, [*words, "host", "true"]))


def test_the_command_line_and_python_give_the_same(tmp_path: Path) -> None:
    (tmp_path / "vars").write_text("# comment\nA=file\n\n  B= kept\n")
    words = (
        "-m 512m --memory-swap -1 --memory-reservation=256m --cpus 1.5 --pids-limit 64 --timeout 1m30s --read-only "
        f"-e A=1 --env-file {tmp_path}/vars -w /work -u 1000:nogroup --group-add audio --umask 077 --cap-add net_admin "
        "--cap-drop ALL --security-opt no-new-privileges=false --security-opt seccomp=unconfined --security-opt "
        f"mask=/a:/b --security-opt unmask=ALL --network host --pid host --userns keep-id -v {tmp_path}:/data:ro "
        "--tmpfs /t:size=64m --ulimit nofile=10:20 --ulimit core=unlimited --sysctl kernel.sem=1 "
        "--time-offset boottime=7d "
        "--cpuset-cpus 0-1 --shm-size 1g --hugetlb 2m=4m --cgroup-conf memory.high=100M -h box --init=false --name n"
    )
    python = make(
        "host",
        ["true"],
        memory=512 << 20,
        memory_swap=-1,
        memory_reservation="256m",
        cpus=1.5,
        pids=64,
        timeout=90,
        read_only=True,
        env={"A": "1"},
        env_file=[f"{tmp_path}/vars"],
        workdir="/work",
        user="1000:nogroup",
        group_add=["audio"],
        umask=0o77,
        cap_add=["net_admin"],
        cap_drop=["ALL"],
        no_new_privileges=False,
        seccomp="unconfined",
        mask=["/a", "/b"],
        unmask=["ALL"],
        network="host",
        pid="host",
        userns="keep-id",
        volumes=[f"{tmp_path}:/data:ro"],
        tmpfs=["/t:size=64m"],
        ulimits={"nofile": "10:20", "core": -1},
        sysctls={"kernel.sem": 1},
        time_offset=["boottime=7d"],
        cpuset_cpus="0-1",
        shm_size="1g",
        hugetlb={"2m": "4m"},
        cgroup_conf={"memory.high": "100M"},
        hostname="box",
        init=False,
        name="n",
    )
    command_line = typed(*words.split())
    assert command_line == python
    assert python.env == (("A", "file"), ("B", " kept"), ("A", "1"))
    assert python.ulimits == (Ulimit("nofile", 10, 20), Ulimit("core", UNLIMITED, UNLIMITED))
    assert python.time_offset == (("boottime", 604800, 0),)
    assert python.hugetlb[0].page_size == "2MB"
    assert typed() == RunOptions(image="host", argv=("true",))


def test_every_option_is_in_each_of_the_four_tables() -> None:
    fields = set(RunOptions._fields) - {"image", "argv"}
    readers = set(ONE) | set(MANY)
    known = set(keywords.RunKeywords.__annotations__)
    rows = {option.key for group in GROUPS for option in group.options if not option.refuse}
    assert readers == known
    assert fields == readers - {"volumes", "tmpfs", "env_file", "security_opt"}
    by_security_opt = {"no_new_privileges", "seccomp", "mask", "unmask"}
    assert rows - {"interactive", "rm", "summary"} == readers - by_security_opt
    assert all(value == () for name, value in RunOptions._defaults.items() if name in MANY)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-m 12q", "-m: '12q' is not a size: use a number with b, k, m, g or t"),
        ("--memory 1m", "--memory: 1m is less than a container needs to start: give at least 6m"),
        ("--memory-swap 1g", "memory-swap: needs a memory limit, too"),
        ("-m 1g --memory-swap 512m", "memory-swap: is memory and swap together, so at least memory"),
        ("-m 1g --memory-reservation 2g", "memory-reservation: is above the memory limit"),
        ("--oom-kill-disable", "oom-kill-disable: needs a memory limit, or the host could hang"),
        ("--cpus 1 --cpu-quota 5000", "cpus: says the same as cpu-quota and cpu-period: give one or the other"),
        ("--cpuset-cpus 3-1", "--cpuset-cpus: '3-1' is no list of numbers such as 0-3,7"),
        ("--memory-swappiness 101", "--memory-swappiness: 101 is out of range: it must be between -1 and 100"),
        ("--blkio-weight 5", "--blkio-weight: 5 is out of range: it must be between 10 and 1000"),
        ("--device-read-bps /dev/null:1m", "--device-read-bps: /dev/null is not a block device"),
        ("--device-read-bps /dev/nope:1m", "--device-read-bps: /dev/nope: no such file or directory"),
        ("--ulimit files=1", "--ulimit: 'files' is no resource limit: use one of as, core, cpu, data, fsize, locks,"),
        ("--ulimit nofile=5:4", "--ulimit: 'nofile=5:4': the soft limit is above the hard one"),
        ("--timeout 5x", "--timeout: '5x' is not a duration: use seconds, or text such as 10s, 1m30s, 500ms"),
        ("--env-file /nope", "--env-file: /nope: no such file or directory"),
        ("-e =x", "-e: '=x': write KEY=VALUE"),
        ("-w work", "-w: 'work' is not absolute: it is a directory in the container"),
        ("--umask 9", "--umask: '9' is not an octal number up to 777"),
        ("--name /x", "--name: '/x': use letters, digits, '_', '.' and '-', a letter or digit first"),
        ("-h a/b", "-h: 'a/b': a name has at most 64 bytes, and no spaces or slashes (sethostname(2))"),
        ("-h a --uts host", "hostname: the host name belongs to uts host, not to the container"),
        ("--network bridge", "--network: 'bridge' networks come later: use none (only lo), host or ns:PATH"),
        ("--network mynet", "--network: 'mynet' is not available: use none, host or ns:PATH"),
        ("--network ns:/nope", "--network: /nope: no such file or directory"),
        ("--pid container:x", "--pid: 'container:x': sharing by container name is not available yet"),
        ("--uidmap 0:1", "uidmap and gidmap: give both"),
        ("--uidmap 0:1:x", "--uidmap: 'x' is not a whole number"),
        ("--timens host --time-offset boottime=1", "time-offset: cannot be set in timens host"),
        ("--time-offset realtime=1", "--time-offset: 'realtime' is no clock with an offset: use boottime or monotonic"),
        ("--security-opt apparmor=x", "--security-opt: apparmor is not supported yet: seccomp, mask, unmask and"),
        ("--security-opt seccomp=/nope", "--security-opt: seccomp profile /nope: no such file"),
        ("--security-opt what", "--security-opt: 'what' is unknown: use no-new-privileges, seccomp=, mask= or unmask="),
        ("--device /nope", "--device: /nope: no such file or directory"),
        ("--device /etc/passwd", "--device: /etc/passwd is not a device node"),
        ("--device /dev/null:rwx", "--device: 'rwx' is no device access: use letters of rwm"),
        ("--device-cgroup-rule c:1", "--device-cgroup-rule: 'c:1': write TYPE MAJOR:MINOR ACCESS"),
        ("--rootfs /nope", "--rootfs: /nope: no such directory"),
        ("--rootfs /etc/passwd", "--rootfs: /etc/passwd: is not a directory"),
        ("--writable somewhere", "--writable: 'somewhere': use throwaway, tmpfs, direct, or a directory such as"),
        ("--shm-size 1m --ipc host", "shm-size: /dev/shm is the host's with ipc host"),
        ("--stop-signal NOPE", "--stop-signal: 'NOPE' is not a signal: use a name like TERM or a number from 1 to 64"),
        ("--rdma mlx:handle=1", "--rdma: 'mlx:handle=1': write DEVICE:handles=NUMBER,objects=NUMBER"),
        ("-v /nope:/x", "-v: /nope: no such file or directory"),
        ("--volume data:/x", "--volume: 'data' would be a named volume, and there are none yet: for a directory"),
        ("-v /data", "-v: '/data' names no source: there are no volumes yet, write ./DIR:/data"),
        ("-v /:x", "-v: 'x' in '/:x' is no absolute path in the container"),
        ("-v /etc:/", "-v: nothing can be mounted on / itself: use --rootfs DIR"),
        ("-v /etc:/x:rx", "-v: unknown option 'rx' for the bind of /etc"),
        ("-v /etc:/x --tmpfs /x/", "mount: /x is given twice"),
        ("--mount dst=/x", "--mount: type= is not available: use type=bind or type=tmpfs (no volumes yet)"),
        ("--mount type=bind,dst=/x", "--mount: 'type=bind,dst=/x' says not what: give src=PATH"),
        ("--mount type=bind,src=/etc,dst=/x,color=red", "--mount: unknown option color=red for type=bind"),
        ("--mount type=tmpfs,dst=/x,size=q", "--mount /x: size: 'q' is not a size: use a number with b, k, m, g or t"),
        ("--tmpfs /x:sizes=1", "--tmpfs /x: unknown option 'sizes=1' for a tmpfs"),
    ],
)
def test_what_makes_no_sense_is_one_line_that_names_the_option(words: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        typed(*(words.split(" ") if "rule" not in words else words.split(" ", 1)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 125


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"memroy": 1}, "unknown option 'memroy': did you mean memory?"),
        ({"memory": 1.5}, "memory: 1.5 is not a size"),
        ({"env": "A=1"}, "env: 'A=1' is not a list"),
        ({"cpus": "many"}, "cpus: 'many' is not a number of CPUs"),
        ({"mounts": [("/tmp", "/x")]}, "mounts: ('/tmp', '/x') is not text"),
        ({"volumes": {"/tmp": {"bind": "/x"}}}, "volumes: a mapping cannot say it: give a list"),
        ({"env": {"A=B": "1"}}, "env: 'A=B' is no name"),
        ({"env": {1: "1"}}, "env: 1 is no name"),
        ({"env": {"A": "\ud800"}}, "env: 'A=.ud800': write KEY=VALUE"),
        ({"user": "\ud800"}, "user: '.ud800' is not a text"),
        ({"cap_add": [3]}, "cap_add: 3 is not text"),
        ({"rootfs": "/"}, "give either an image or a rootfs, not both"),
    ],
)
def test_python_gets_the_name_of_its_keyword(given: dict[str, Any], message: str) -> None:
    with pytest.raises(Error, match="^" + message.replace("?", r"\?").replace("(", r"\(").replace(")", r"\)")):
        make("host", ["true"], **given)


def test_a_command_is_a_list() -> None:
    with pytest.raises(InvalidInput, match=r"^argv: 'echo hi' is not a list"):
        make("host", "echo hi")
    with pytest.raises(InvalidInput, match=r"^argv: 3 is not text"):
        make("host", ["sleep", 3])  # type: ignore[list-item]
    with pytest.raises(InvalidInput, match=r"^argv: None is not a list"):
        make("host", None)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=r"^argv: '.ud800' is not text"):
        make("host", ["\ud800"])
    with pytest.raises(InvalidInput, match=r"^image: None is neither"):
        make(None, ["true"])  # type: ignore[arg-type]
    assert make("host", ["cat", Path("/x")]).argv == ("cat", "/x")  # type: ignore[list-item]


def test_variables_without_a_value_are_our_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OURS", "yes")
    monkeypatch.delenv("ABSENT", raising=False)
    assert typed("-e", "OURS", "-e", "ABSENT", "-e", "EMPTY=").env == (("OURS", "yes"), ("EMPTY", ""))
    assert make("host", ["x"], env={"OURS": None}).env == (("OURS", "yes"),)


def test_files_of_variables(tmp_path: Path) -> None:
    file = tmp_path / "vars"
    file.write_bytes(b"\xef\xbb\xbf# first\n\nA=1\n  B=' two '\n#C=3\n")
    assert typed("--env-file", str(file), "-e", "A=2").env == (("A", "1"), ("B", "' two '"), ("A", "2"))
    file.write_text("A=1\nB C=2\n")
    with pytest.raises(InvalidInput, match=r"line 2: 'B C' is no name of a variable"):
        typed("--env-file", str(file))
    file.write_text("A=1\u20282\f3\n", encoding="utf-8")
    assert typed("--env-file", str(file)).env == (("A", "1\u20282\f3"),)


def test_zero_and_minus_one_mean_no_limit() -> None:
    assert typed("-m", "0", "--cpus", "0", "--pids-limit", "-1", "--timeout", "0") == typed()


def test_binds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a,b").mkdir()
    here = str(tmp_path)
    assert typed("-v", ".:/x").mounts == (MountOption("bind", "/x", here),)
    assert typed("-v", f"{here}:/x/../y:ro,rslave,noexec,cached").mounts == (
        MountOption("bind", "/y", here, read_only=True, propagation="rslave", options=("noexec",)),
    )
    assert typed("--mount", 'type=bind,"src=./a,b",target=/x,readonly,bind-recursive=writable').mounts == (
        MountOption("bind", "/x", f"{here}/a,b", read_only=True, recursive_read_only=False),
    )
    assert typed("--mount", f"type=bind,src={here},dst=/x,ro=false,bind-propagation=rshared").mounts == (
        MountOption("bind", "/x", here, propagation="rshared"),
    )
    assert typed("-v", f"{here}:/x:idmap=uids=0-1000-1#1-5-2;gids=0-7-1").mounts == (
        MountOption(
            "bind",
            "/x",
            here,
            idmap=True,
            uid_map=(IdMapping(0, 1000, 1), IdMapping(1, 5, 2)),
            gid_map=(IdMapping(0, 7, 1),),
        ),
    )


def test_tmpfs() -> None:
    tight = ("noexec", "nosuid", "nodev")
    assert typed("--tmpfs", "/x").mounts == (MountOption("tmpfs", "/x", options=tight),)
    assert typed("--tmpfs", "/x:size=1m,mode=700,exec,nr_inodes=5,ro").mounts == (
        MountOption("tmpfs", "/x", "", True, size=1 << 20, mode=0o700, options=("nosuid", "nodev", "nr_inodes=5")),
    )
    assert typed("--mount", "type=tmpfs,dst=/x,tmpfs-size=1m").mounts == (
        MountOption("tmpfs", "/x", size=1 << 20, options=tight),
    )


def test_rootfs_takes_the_place_of_the_image(tmp_path: Path) -> None:
    options = options_of(*parse(COMMAND, ["--rootfs", str(tmp_path), "ls", "-l"]))
    assert (options.image, options.rootfs, options.argv) == ("", str(tmp_path), ("ls", "-l"))


def test_signals_have_names_and_numbers() -> None:
    assert typed("--stop-signal", "SIGINT").stop_signal == typed("--stop-signal", "2").stop_signal == 2
    assert typed("--stop-signal", "SIGRTMIN+3").stop_signal == 37  # what systemd as an init wants


def test_entrypoint() -> None:
    assert typed("--entrypoint", "sh").entrypoint == ("sh",)
    assert typed("--entrypoint", "").entrypoint == ()
    assert typed("--entrypoint", '["sh", "-c"]').entrypoint == ("sh", "-c")
