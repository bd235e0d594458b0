"""The options that `corten run` and `corten plan` share, as a table.

How an argument is read is decided in `corten.engine.option_readers`, once for the command line and for Python.
"""

from __future__ import annotations

from corten.cli.parser import Group, Option
from corten.engine.option_readers import MANY, ONE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from corten.engine.options import RunOptions


def _row(names: str, metavar: str, words: str, dest: str = "") -> Option:
    listed = tuple(names.split())
    key = dest or listed[-1].lstrip("-").replace("-", "_")
    return Option(listed, metavar, words, key, key in MANY, MANY.get(key) or ONE.get(key))


def _refused(names: str, metavar: str, why: str) -> Option:
    return Option(tuple(names.split()), metavar, refuse=why)


_LATER = "not available yet"

GROUPS = (
    Group(
        "Memory",
        (
            _row("-m --memory", "SIZE", "The most memory, such as 512m or 1.5g; also bounds /dev/shm"),
            _row("--memory-swap", "SIZE", "Memory and swap together; default twice the memory, -1: all swap"),
            _row("--memory-reservation", "SIZE", "What it may keep when the host runs short"),
            _row("--memory-swappiness", "NUMBER", "Readiness to swap, 0 to 100 (cgroup v1 only)"),
            _row("--oom-kill-disable", "", "Pause instead of killing when out of memory (cgroup v1 only)"),
            _row("--oom-score-adj", "NUMBER", "Who is killed first when the host is out of memory, -1000 to 1000"),
            _row("--shm-size", "SIZE", "Size of /dev/shm; default half the memory limit, or 64m"),
            _row("--hugetlb", "PAGE=SIZE", "The most huge pages of one size, such as 2MB=64m"),
        ),
    ),
    Group(
        "CPU",
        (
            _row("--cpus", "NUMBER", "CPUs it may use, such as 1.5; thread counts (OMP_NUM_THREADS, …) follow"),
            _row("--cpuset-cpus", "LIST", "Run only on these CPUs, such as 0-3,7"),
            _row("--cpuset-mems", "LIST", "Take memory only from these NUMA nodes"),
            _row("-c --cpu-shares", "NUMBER", "Weight against others when CPUs are short (1024 is usual)"),
            _row("--cpu-quota", "MICROSECONDS", "CPU time in each period"),
            _row("--cpu-period", "MICROSECONDS", "Length of a period (100000)"),
            _row("--cpu-burst", "MICROSECONDS", "Unused time that may be saved up"),
            _row("--cpu-idle", "", "Run only when nothing else wants the CPU"),
            _row("--cpu-rt-runtime", "MICROSECONDS", "Real-time CPU time in each real-time period (cgroup v1 only)"),
            _row("--cpu-rt-period", "MICROSECONDS", "Length of a real-time period (cgroup v1 only)"),
        ),
    ),
    Group(
        "Other limits",
        (
            _row("--pids-limit", "NUMBER", "The most processes and threads", "pids"),
            _row("--timeout", "TIME", "Kill all of it after this time: 30, 10s, 5m"),
            _row("--ulimit", "NAME=SOFT[:HARD]", "A limit of setrlimit(2), such as nofile=1024", "ulimits"),
            _row("--blkio-weight", "NUMBER", "Share of disk time, 10 to 1000"),
            _row("--blkio-weight-device", "DEVICE:NUMBER", "The same for one disk"),
            _row("--device-read-bps", "DEVICE:SIZE", "The most bytes read per second"),
            _row("--device-write-bps", "DEVICE:SIZE", "The most bytes written per second"),
            _row("--device-read-iops", "DEVICE:NUMBER", "The most reads per second"),
            _row("--device-write-iops", "DEVICE:NUMBER", "The most writes per second"),
            _row("--rdma", "DEVICE:handles=N,objects=N", "The most RDMA resources"),
            _row("--net-class", "NUMBER", "Class of its packets for tc(8) (cgroup v1 only)"),
            _row("--net-priority", "INTERFACE=NUMBER", "Priority of its packets (cgroup v1 only)"),
            _row("--cgroup-conf", "FILE=VALUE", "Write any file of cgroup v2, such as memory.high=100M"),
            _row("--cgroup-parent", "PATH", "The control group to make its group in; made if missing, and kept"),
            _row("--best-effort", "", "Go on without limits that cannot be applied, and say which"),
        ),
    ),
    Group(
        "Files",
        (
            _row("-v --volume", "SRC:DST[:OPTIONS]", "Show a path of the host: ro, rw, rslave, idmap, …", "volumes"),
            _row("--mount", "KEY=VALUE,…", "type=bind,src=…,dst=…[,readonly] or type=tmpfs,dst=…[,size=…]", "mounts"),
            _row("--tmpfs", "DST[:OPTIONS]", "An empty directory in memory: size=64m, mode=1777, exec"),
            _row("--read-only", "", "Nothing can be written outside of mounts"),
            _row("--pull", "WHEN", "Fetch the image from its registry: always, missing (default) or never"),
            _row("--platform", "OS/ARCH", "Which of the image's platforms, such as linux/arm64"),
            _row("--rootfs", "DIR", "Use a directory as the root instead of an image"),
            _row(
                "--writable",
                "WHERE",
                "What is written goes to: throwaway (default for images), tmpfs, a directory that keeps it, or direct "
                "(into the directory itself, default for --rootfs)",
            ),
        ),
    ),
    Group(
        "Process",
        (
            _row("-e --env", "KEY[=VALUE]", "Set a variable; without VALUE, as it is here"),
            _row("--env-file", "FILE", "Set variables from lines KEY=VALUE"),
            _row("-w --workdir", "DIR", "Working directory in the container"),
            _row("-u --user", "USER[:GROUP]", "User and group, by name or number"),
            _row("--group-add", "GROUP", "A further group, by name or number"),
            _row("--umask", "OCTAL", "Mode bits that new files lack (0022)"),
            _row("--entrypoint", "COMMAND", "Run this; what follows IMAGE are its arguments"),
            _row("-i --interactive", "", "Connect standard input"),
            _row("-t --tty", "", "Give it a terminal"),
            _row("--init", "", "A first process that reaps and forwards signals (default; --init=false)"),
            _row("--stop-signal", "SIGNAL", "What it gets when TERM ends corten (the image's, else TERM)"),
            _row("--name", "NAME", "Name of the container"),
            _row("--rm", "", "Remove it when it ends (always so for now)"),
            _row("--summary", "", "Tell on stderr how it ended and what it used"),
        ),
    ),
    Group(
        "Namespaces (MODE: private, host, or ns:/proc/PID/ns/NAME)",
        (
            _row("-h --hostname", "NAME", "Host name; default the container's id"),
            _row("--domainname", "NAME", "NIS domain name"),
            _row("--net --network", "none|host|ns:PATH", "none (the default: only lo) or host; bridges come later"),
            _row("--pid", "MODE", "Process ids"),
            _row("--ipc", "MODE", "Shared memory, semaphores, message queues"),
            _row("--uts", "MODE", "Host and domain name"),
            _row("--cgroupns", "MODE", "View of the control groups"),
            _row("--userns", "MODE", "User ids; also keep-id. Default: host for root, private for other users"),
            _row("--uidmap", "INSIDE:OUTSIDE:COUNT", "Map user ids (a private user namespace)"),
            _row("--gidmap", "INSIDE:OUTSIDE:COUNT", "Map group ids"),
            _row("--timens", "MODE", "Clocks"),
            _row("--time-offset", "CLOCK=TIME", "Shift boottime or monotonic, such as boottime=7d"),
            _row("--sysctl", "KEY=VALUE", "Set a kernel parameter of its own namespaces", "sysctls"),
        ),
    ),
    Group(
        "Rights",
        (
            _row("--cap-add", "NAME", "Give a capability, such as NET_ADMIN, or ALL"),
            _row("--cap-drop", "NAME", "Take a capability, or ALL"),
            _row(
                "--security-opt",
                "OPTION",
                "no-new-privileges[=false], seccomp=FILE|unconfined, mask=PATH[:PATH], unmask=ALL|PATH[:PATH]",
            ),
            _row("--device", "SRC[:DST][:rwm]", "Give a device node of the host", "devices"),
            _row("--device-cgroup-rule", "RULE", "Allow devices by number: 'c 10:200 rwm'", "device_cgroup_rules"),
        ),
    ),
    Group(
        "Not available",
        (
            _refused("-d --detach", "", f"{_LATER}: run it in the background of the shell, or from Python"),
            _refused("-p --publish", "PORTS", f"{_LATER}: use --network host"),
            _refused("-P --publish-all", "", f"{_LATER}: use --network host"),
            _refused("--restart", "POLICY", _LATER),
            _refused("-l --label", "LABEL", _LATER),
            _refused("--volumes-from", "CONTAINER", _LATER),
            _refused("--dns", "ADDRESS", f"{_LATER}: networks other than none and host are missing"),
            _refused("--add-host", "HOST", f"{_LATER}: networks other than none and host are missing"),
            _refused("--gpus", "WHICH", f"{_LATER}: use --device"),
            _refused("--kernel-memory", "SIZE", "kernels have no such limit any more: use --memory"),
            _refused(
                "--privileged",
                "",
                "there is no switch that takes all protection away: use what is needed of --cap-add ALL, "
                "--security-opt seccomp=unconfined, --security-opt unmask=ALL and --device",
            ),
        ),
    ),
)

NOTES = """
IMAGE is 'host' (this machine, read-only, writes vanish), the name of an image
(debian, ghcr.io/org/app:1), or the path of a tar archive (./image.tar.gz). With
--rootfs there is no IMAGE.
Sizes are powers of 1024: b, k, m, g, t.
Exit code: the command's own; 128+N: killed by signal N; 125: corten failed;
126: the command cannot be executed; 127: there is no such command.
"""


def options_of(values: dict[str, Any], words: list[str]) -> RunOptions:
    """The options from what `parse` found. Raises `InvalidInput`."""
    from corten.engine.options import make

    given = {key: value for key, value in values.items() if key not in ("interactive", "rm", "json", "summary")}
    if "rootfs" in given:
        return make("", words, **given)
    return make(words[0] if words else "", words[1:], **given)


