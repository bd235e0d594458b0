"""Bad input: one clear line, the right exit code, and nothing left behind (the leak check runs after each case)."""

from __future__ import annotations

import os
import subprocess
import tarfile
from pathlib import Path

import pytest

import corten
from small_root import CORTEN, line, make, refused, run, shared, start

# (words, exit code, what the line says). ROOT stands for the small root, TMP for an empty directory.
CASES = [
    # what is to run
    ("", 125, "run needs an IMAGE"),
    ("host", 125, "there is no command"),
    ("nonsense true", 125, "not in the store"),
    ("docker.io/library/alpine true", 125, "docker.io/library/alpine"),
    ("./absent.tar.gz true", 125, "./absent.tar.gz"),
    ("TMP/file.tar true", 125, "TMP/file.tar"),
    ("--rootfs ROOT absent", 127, "absent: not found in the container"),
    ("--rootfs ROOT /etc/passwd", 126, "/etc/passwd: cannot be executed: permission denied"),
    ("--rootfs ROOT /etc", 126, "/etc: cannot be executed: it is a directory"),
    ("--rootfs ROOT -u alice --entrypoint /bin/absent x", 127, "/bin/absent: not found"),
    # options
    ("--nonsense --rootfs ROOT true", 125, "--nonsense"),
    ("--memry 1g --rootfs ROOT true", 125, "--memory"),
    ("-Z --rootfs ROOT true", 125, "-Z"),
    ("--memory", 125, "--memory"),
    ("--detach --rootfs ROOT true", 125, "not available yet"),
    ("--privileged --rootfs ROOT true", 125, "--cap-add ALL"),
    ("-p 80:80 --rootfs ROOT true", 125, "--network host"),
    ("--init=maybe --rootfs ROOT true", 125, "--init"),
    # sizes and numbers
    ("--memory 12q --rootfs ROOT true", 125, "--memory: '12q' is not a size"),
    ("--memory 1k --rootfs ROOT true", 125, "less than a container needs"),
    ("--memory -5 --rootfs ROOT true", 125, "--memory"),
    ("--memory 64m --memory-swap 32m --rootfs ROOT true", 125, "memory-swap"),
    ("--memory-swap 32m --rootfs ROOT true", 125, "memory-swap"),
    ("--memory 64m --memory-reservation 1g --rootfs ROOT true", 125, "memory-reservation"),
    ("--cpus lots --rootfs ROOT true", 125, "--cpus"),
    ("--cpus 1 --cpu-quota 1000 --rootfs ROOT true", 125, "one or the other"),
    ("--cpuset-cpus 3-1 --rootfs ROOT true", 125, "--cpuset-cpus"),
    ("--cpu-shares -1 --rootfs ROOT true", 125, "--cpu-shares"),
    ("--pids-limit many --rootfs ROOT true", 125, "--pids-limit"),
    ("--timeout soon --rootfs ROOT true", 125, "--timeout"),
    ("--shm-size x --rootfs ROOT true", 125, "--shm-size"),
    ("--ulimit nofile --rootfs ROOT true", 125, "--ulimit"),
    ("--ulimit nonsense=1 --rootfs ROOT true", 125, "nonsense"),
    ("--ulimit nofile=10:5 --rootfs ROOT true", 125, "soft limit"),
    ("--device-read-bps /dev/null:1m --rootfs ROOT true", 125, "not a block device"),
    ("--device-read-bps /dev/absent:1m --rootfs ROOT true", 125, "/dev/absent"),
    ("--blkio-weight 5 --rootfs ROOT true", 125, "--blkio-weight"),
    ("--cpu-shares 1 --rootfs ROOT true", 125, "--cpu-shares: 1 is out of range"),
    ("--cpu-quota 999 --rootfs ROOT true", 125, "--cpu-quota: 999 is out of range"),
    ("--cpu-period 999 --rootfs ROOT true", 125, "--cpu-period: 999 is out of range"),
    ("--cpuset-cpus 0-8000 --rootfs ROOT true", 125, "no such CPU"),
    ("--cpuset-cpus \u00b2 --rootfs ROOT true", 125, "--cpuset-cpus"),
    ("--net-class 0xfffffffff --rootfs ROOT true", 125, "--net-class"),
    ("--cgroup-conf ../x=1 --rootfs ROOT true", 125, "--cgroup-conf: '../x' is no file of a control group"),
    ("--cgroup-parent ../x --rootfs ROOT true", 125, "--cgroup-parent: '../x' is no path of a control group"),
    # below what can start
    ("--pids-limit 1 --rootfs ROOT true", 125, "process limit"),
    # the process
    ("-u nobody-here --rootfs ROOT true", 125, "no user 'nobody-here'"),
    ("-u 0:nogroup-here --rootfs ROOT true", 125, "no group 'nogroup-here'"),
    ("-u 99999999999 --rootfs ROOT true", 125, "99999999999"),
    ("--group-add nogroup-here --rootfs ROOT true", 125, "no group 'nogroup-here'"),
    ("--group-add 4294967295 --rootfs ROOT true", 125, "--group-add: the id 4294967295"),
    ("-w relative --rootfs ROOT true", 125, "not absolute"),
    ("-e =x --rootfs ROOT true", 125, "KEY=VALUE"),
    ("--env-file TMP/absent --rootfs ROOT true", 125, "TMP/absent"),
    ("--umask 999 --rootfs ROOT true", 125, "--umask"),
    ("--cap-add NONSENSE --rootfs ROOT true", 125, "NONSENSE"),
    ("--stop-signal NONSENSE --rootfs ROOT true", 125, "NONSENSE"),
    ("--oom-score-adj 5000 --rootfs ROOT true", 125, "--oom-score-adj"),
    ("--security-opt nonsense --rootfs ROOT true", 125, "nonsense"),
    ("--security-opt seccomp=TMP/absent --rootfs ROOT true", 125, "TMP/absent"),
    ("--security-opt seccomp=TMP --rootfs ROOT true", 125, "TMP: is not a file"),
    ("--hostname \udcff --rootfs ROOT true", 125, "--hostname"),
    ("--stop-signal RTMIN+99 --rootfs ROOT true", 125, "--stop-signal"),
    ("--hostname a/b --rootfs ROOT true", 125, "--hostname"),
    ("--name a/b --rootfs ROOT true", 125, "--name"),
    # mounts
    ("-v TMP/absent:/mnt --rootfs ROOT true", 125, "TMP/absent: no such file or directory"),
    ("-v :/mnt --rootfs ROOT true", 125, "it says not what to show"),
    ("--mount TMP:/mnt --rootfs ROOT true", 125, "--mount: type="),
    ("-v TMP:/etc/passwd --writable throwaway --rootfs ROOT true", 125, "TMP is a directory"),
    ("-v absent:/mnt --rootfs ROOT true", 125, "./absent"),
    ("-v TMP:relative --rootfs ROOT true", 125, "no absolute path"),
    ("-v TMP:/ --rootfs ROOT true", 125, "--rootfs"),
    ("-v TMP:/mnt:nonsense --rootfs ROOT true", 125, "nonsense"),
    ("-v TMP:/mnt -v TMP:/mnt --rootfs ROOT true", 125, "given twice"),
    ("-v TMP/file.tar:/etc --writable throwaway --rootfs ROOT true", 125, "is a file"),
    ("-v TMP:/etc/passwd/x --writable throwaway --rootfs ROOT true", 125, "Not a directory"),
    ("--mount type=nonsense,dst=/mnt --rootfs ROOT true", 125, "type=nonsense"),
    ("--mount type=bind,src=TMP --rootfs ROOT true", 125, "dst="),
    ("--tmpfs /mnt:nonsense --rootfs ROOT true", 125, "nonsense"),
    ("--tmpfs /mnt:size=x --rootfs ROOT true", 125, "size"),
    ("--writable TMP/absent --rootfs ROOT true", 125, "TMP/absent"),
    ("--writable direct host true", 125, "never written to"),
    ("--device /dev/absent --rootfs ROOT true", 125, "/dev/absent"),
    ("--device TMP/file.tar --rootfs ROOT true", 125, "not a device"),
    # roots that are none
    ("--rootfs TMP/absent true", 125, "TMP/absent"),
    ("--rootfs TMP/file.tar true", 125, "TMP/file.tar"),
    ("--rootfs TMP true", 125, "TMP"),
    ("--rootfs / true", 125, "host"),
    ("--platform linux/arm64 host true", 125, "platform: host cannot be had for another"),
    # namespaces
    ("--network ns:/etc/passwd --writable throwaway --rootfs ROOT true", 125, "it is not a network namespace"),
    ("--ipc ns:/proc/self/ns/uts --writable throwaway --rootfs ROOT true", 125, "it is not a ipc namespace"),
    ("--network bridge --rootfs ROOT true", 125, "later"),
    ("--network ns:/absent --rootfs ROOT true", 125, "/absent"),
    ("--pid container:x --rootfs ROOT true", 125, "not available yet"),
    ("--uts nonsense --rootfs ROOT true", 125, "--uts"),
    ("--uts host --hostname x --rootfs ROOT true", 125, "hostname"),
    ("--sysctl kernel.panic=1 --rootfs ROOT true", 125, "kernel.panic"),
    ("--sysctl net.nonsense=1 --writable throwaway --rootfs ROOT true", 125, "this kernel has no such parameter"),
    ("--time-offset nonsense=1 --rootfs ROOT true", 125, "nonsense"),
]


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with nothing but a file that is no archive."""
    path = tmp_path_factory.mktemp("bad")
    (path / "file.tar").write_text("no archive\n")
    return path


@pytest.mark.parametrize(("words", "code", "said"), CASES, ids=[case[0] or "nothing" for case in CASES])
def test_bad_input(words: str, code: int, said: str, empty: Path) -> None:
    def real(text: str) -> str:
        return text.replace("ROOT", shared()).replace("TMP", str(empty))

    done = refused(*map(real, words.split()))
    assert (done.returncode, real(said) in done.stderr) == (code, True), done.stderr
    assert sorted(path.name for path in empty.iterdir()) == ["file.tar"]


def test_name_in_use() -> None:
    with start("echo ready; read x", stdin=corten.PIPE, name="taken") as container:
        assert line(container) == "ready"
        done = refused("--name", "taken", "--rootfs", shared(), "true")
        said = f"the name taken is in use by container {container.id}: choose another, or end that one first"
        assert (done.returncode, done.stderr) == (125, f"corten: {said}\n")
        with pytest.raises(corten.NameInUse, match=said):
            run("true", name="taken")
        assert container.running()
    assert run("true", name="taken").exit_code == 0


def test_damaged_and_hostile_archives(tmp_path: Path) -> None:
    whole = tmp_path / "whole.tar.gz"
    with tarfile.open(whole, "w:gz") as archive:
        archive.add(shared(), ".")
    cut = tmp_path / "cut.tar.gz"
    cut.write_bytes(whole.read_bytes()[:50_000])
    done = refused(str(cut), "true")
    assert (done.returncode, "cut.tar.gz" in done.stderr) == (125, True), done.stderr
    hostile = tmp_path / "hostile.tar"
    with tarfile.open(hostile, "w") as archive:
        member = tarfile.TarInfo("../../escaped")
        archive.addfile(member)
    done = refused(str(hostile), "true")
    assert (done.returncode, "escaped" in done.stderr) == (125, True), done.stderr


def test_kernel_without_a_feature() -> None:
    """A device that is not there, and a controller that is not mounted: the line names them."""
    mounts = Path("/proc/filesystems").read_text().split()
    assert "nonsense" not in mounts
    done = refused("--net-class", "5", "--rootfs", shared(), "true")
    assert done.returncode == 125
    assert "net_cls" in done.stderr


def test_home_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    done = subprocess.run(
        [CORTEN, "run", "--rootfs", shared(), "true"], capture_output=True, text=True, check=False,
        env={**os.environ, "CORTEN_HOME": str(tmp_path / "file/home")},
    )  # fmt: skip
    assert done.returncode == 125
    assert done.stderr.count("\n") == 1
    assert "CORTEN_HOME" in done.stderr


def test_the_same_in_python(tmp_path: Path) -> None:
    for error, options in (
        (corten.NotFound, {"image": "nonsense", "argv": ["true"]}),
        (corten.InvalidInput, {"image": "host"}),
        (corten.InvalidInput, {"image": "host", "argv": "true"}),
        (corten.InvalidInput, {"image": "host", "argv": ["a\0b"]}),
        (corten.InvalidInput, {"image": "host", "argv": ["true"], "memory": "lots"}),
        (corten.InvalidInput, {"image": "host", "argv": ["true"], "memry": "1g"}),
        (corten.InvalidInput, {"image": "host", "argv": ["true"], "volumes": ["/absent:/mnt"]}),
        (corten.InvalidInput, {"image": "host", "argv": ["true"], "rootfs": tmp_path}),
        (corten.InvalidInput, {"image": "host", "argv": ["true"], "tty": True}),
        (corten.CommandNotFound, {"image": "host", "argv": ["absent-command"]}),
        (corten.CommandNotRunnable, {"image": "host", "argv": ["/etc"]}),
    ):
        with pytest.raises(error) as caught:
            corten.run(**options)
        assert isinstance(caught.value, corten.Error)
        assert "\n" not in str(caught.value)


def test_option_that_python_misspells_is_named() -> None:
    with pytest.raises(corten.InvalidInput, match="did you mean memory"):
        corten.run("host", ["true"], memry="1g")  # type: ignore[call-arg]


def test_root_that_holds_no_program(tmp_path: Path) -> None:
    mine = make(tmp_path / "root")
    for path in (mine / "bin").iterdir():
        path.unlink()
    done = refused("--rootfs", str(mine), "sh")
    assert done.returncode == 127
