"""`corten run IMAGE`: what an image says about running it, what the options say instead, and where it comes from."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from corten.images.manifests import LAYER, Descriptor
from corten.images.references import parse
from corten.images.registry.pushing import push
from corten.images.store import removal
from corten.images.store.images import Image, Layer, Store
from images_lab import Server, image, run

CORTEN = str(Path(sys.executable).parent / "corten")
Corten = Callable[..., subprocess.CompletedProcess[str]]
FILE, DIRECTORY, LINK = tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE


def layer(store: Store, *members: tuple[str, bytes, str]) -> Layer:
    """A layer of (name, kind, text or target)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, kind, text in members:
            info = tarfile.TarInfo(name)
            info.type, info.mode = kind, 0o755
            if kind == LINK:
                info.linkname = text
            else:
                info.size = len(text)
            archive.addfile(info, io.BytesIO(text.encode("latin-1")))
    with store.using():
        digest, size = store.blobs.put(data.getvalue())
        made = Layer(Descriptor(LAYER, digest, size), digest)
        store.lower(made)
    return made


@pytest.fixture
def made(store: Store) -> Callable[..., Image]:
    """Makes images out of one: made(name, *layers, **config), with `raw` for all of the configuration."""
    base = image(store, "base", 1, Entrypoint=["sh", "-c"], Cmd=["id"])

    def make(name: str, *layers: Layer, raw: object = None, **config: object) -> Image:
        whole = raw or {"os": "linux", "architecture": "amd64", "config": {**base.config.raw["config"], **config}}
        with store.using():
            return store.make_image(whole, [*base.layers, *layers], [parse(name)])  # type: ignore[arg-type]

    return make


@pytest.fixture
def said(command: Corten) -> Callable[..., str]:
    """What `corten run WORDS` prints; it must end well."""

    def call(*words: str) -> str:
        done = command("run", *words)
        assert (done.returncode, done.stderr) == (0, ""), done
        return str(done.stdout)

    return call


@pytest.fixture
def refused(command: Corten) -> Callable[..., str]:
    """The one line with which `corten WORDS` ends that cannot work."""

    def call(*words: str, code: int = 125, **options: object) -> str:
        done = command(*words, **options)
        assert (done.returncode, done.stdout) == (code, ""), done
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith("corten: ")
        assert "mistake in corten" not in done.stderr
        return str(done.stderr)

    return call


def test_what_an_image_says_holds_unless_an_option_says_otherwise(
    made: Callable[..., Image], said: Callable[..., str]
) -> None:
    script = "echo $0 $1 $2; id -u; id -g; id -G; pwd; echo $A $HOME; stat -c %F /data /data/sub"
    made("full", Entrypoint=["sh", "-c", script, "zero"], Cmd=["one", "two"], User="alice", WorkingDir="/not/there",
         Env=["A=image", "=nameless", "valueless"], Volumes={"/data/sub": {}})  # fmt: skip
    end = "directory\ndirectory\n"
    assert said("full") == f"zero one two\n1001\n1002\n1002 44\n/not/there\nimage /home/alice\n{end}"
    assert said("full", "three").startswith("zero three\n")
    assert said("--user", "1:77", "-w", "/tmp", "-e", "A=own", "full").endswith(f"1\n77\n77\n/tmp\nown /\n{end}")
    assert said("--user", "0", "full", "x").startswith("zero x\n0\n0\n0\n")
    assert said("--entrypoint", "echo", "full") == "\n"  # and not the image's arguments
    assert said("--entrypoint", "echo", "full", "own") == "own\n"
    assert said("--read-only", "--entrypoint", "sh", "full", "-c", "id -u; pwd") == "1001\n/not/there\n"


@pytest.mark.parametrize(
    ("user", "identity"),
    [
        ("", "0 0 0"), ("alice", "1001 1002 1002 44"), ("1001", "1001 1002 1002 44"), ("12", "12 0 0"),
        ("alice:video", "1001 44 44"), ("12:34", "12 34 34"), ("12:video", "12 44 44"), (":7", "0 7 7"),
        ("0:0", "0 0 0"), ("alice:", "1001 1002 1002 44"),
    ],
)  # fmt: skip
def test_users_by_name_and_number(
    made: Callable[..., Image], said: Callable[..., str], user: str, identity: str
) -> None:
    made("who", User=user)
    assert said("who", "echo $(id -u) $(id -g) $(id -G)") == f"{identity}\n"


def test_users_are_looked_up_as_the_container_will_see_them(
    made: Callable[..., Image], store: Store, said: Callable[..., str], refused: Callable[..., str]
) -> None:
    made("deleted", layer(store, ("etc/.wh.passwd", FILE, "")), User="alice")
    assert "image 'deleted', User: there is no user 'alice'" in refused("run", "deleted")
    made("hidden", layer(store, ("etc", DIRECTORY, ""), ("etc/.wh..wh..opq", FILE, "")), User="alice")
    assert "there is no user 'alice'" in refused("run", "hidden")
    elsewhere = layer(store, ("usr/lib/passwd", FILE, "bob:x:50:60::/bob:/bin/sh\n"), ("usr/lib/group", FILE, ""))
    links = layer(store, ("etc/passwd", LINK, "../usr/lib/passwd"), ("etc/group", LINK, "/usr/lib/./group"))
    made("linked", elsewhere, links, User="bob")
    assert said("linked", "id; echo $HOME") == "uid=50(bob) gid=60\n/bob\n"
    conf = layer(store, (".wh.etc", FILE, ""), ("conf/passwd", FILE, "carl:x:51:61::/carl:/bin/sh\n"))
    made("moved", conf, layer(store, ("etc", LINK, "conf")), User="carl")
    assert said("moved", "echo $(id -u) $HOME") == "51 /carl\n"
    loop = layer(store, ("etc/passwd", LINK, "group"), ("etc/group", LINK, "passwd"))
    made("loop", loop, User="alice")
    assert "there is no user 'alice'" in refused("run", "loop")


def test_the_stop_signal_is_the_one_that_asks_it_to_end(made: Callable[..., Image]) -> None:
    made("stops", StopSignal="SIGUSR1")
    traps = "trap 'exit 3' USR1; trap 'exit 4' TERM; trap 'exit 5' 35; trap 'exit 9' INT"
    script = f"{traps}; echo ready; while :; do sleep 0.01; done"
    for options, number, code in (
        ((), signal.SIGTERM, 3), (("--stop-signal", "TERM"), signal.SIGTERM, 4),
        (("--stop-signal", "RTMIN+1"), signal.SIGTERM, 5), ((), signal.SIGINT, 9),
    ):  # fmt: skip
        with subprocess.Popen([CORTEN, "run", *options, "stops", script], stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.wait() == code


def test_a_read_only_image_can_be_written_to_in_its_volumes(
    made: Callable[..., Image], store: Store, command: Corten, said: Callable[..., str]
) -> None:
    made("vol", layer(store, ("data/old", FILE, "kept")), Volumes={"/data": {}, "new/": {}, "/": {}})
    script = "cat /data/old; echo x > /data/new; echo y > /new/file; cat /data/new /new/file"
    assert said("--read-only", "vol", script) == "keptx\ny\n"
    assert said("vol", "ls -A /new") == ""
    assert command("run", "--read-only", "vol", "touch /no").returncode == 1
    assert said("-v", "/etc/apt:/data:ro", "--read-only", "vol", "ls /data").split() == sorted(os.listdir("/etc/apt"))


def test_images_that_cannot_be_run(
    made: Callable[..., Image], store: Store, refused: Callable[..., str]
) -> None:
    arm = b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xb7\0" + bytes(100)
    foreign = layer(store, ("bin/foreign", FILE, arm.decode("latin-1")))
    made("foreign", foreign, raw={"os": "linux", "architecture": "arm64", "config": {"Cmd": ["/bin/foreign"]}})
    if os.uname().machine != "aarch64":
        line = refused("run", "foreign", code=126)
        assert "(ENOEXEC): the image docker.io/library/foreign:latest is for linux/arm64, and this machine is" in line
        done = subprocess.run(
            [sys.executable, "-c", "import corten; corten.run('foreign')"], capture_output=True, text=True, check=False
        )
        assert done.stderr.splitlines()[-1].startswith("corten.errors.CommandNotRunnable: /bin/foreign: cannot be")
        assert "is for linux/arm64" in done.stderr.splitlines()[-1]
    made("windows", raw={"os": "windows", "architecture": "amd64", "config": {"Cmd": ["x"]}})
    assert "is for windows/amd64: only images for linux" in refused("run", "windows")
    made("mute", raw={"os": "linux", "architecture": "amd64"})
    assert "there is no command" in refused("run", "mute")
    made("signal", StopSignal="SIGFOO")
    assert "image 'signal', StopSignal: 'SIGFOO' is not a signal" in refused("run", "signal")
    made("file", WorkingDir="/etc/passwd")
    assert "/etc/passwd: Not a directory" in refused("run", "file")
    made("many", User="99999999999")
    assert "the id 99999999999 is beyond the largest" in refused("run", "many")
    with store.using():
        store.make_image({"os": "linux"}, [], [parse("empty")])
    assert "has no layers" in refused("run", "empty", "true")
    assert "lower case" in refused("run", "UPPER", "true")


def test_where_an_image_comes_from(
    store: Store, server: Server, said: Callable[..., str], refused: Callable[..., str], tmp_path: Path,
    command: Corten,
) -> None:  # fmt: skip
    name = f"{server.host}/where/app"
    made = image(store, name, 2, Cmd=["cat", "/etc/layer1"])
    push(store, name, name)
    own, other = os.environ["CORTEN_HOME"], str(tmp_path / "other")
    os.environ["CORTEN_HOME"] = other
    try:
        assert "is not in the store: leave --pull never out" in refused("run", "--pull", "never", name)
        fetched = command("run", name)
        assert (fetched.returncode, fetched.stdout) == (0, f"{name} 1"), fetched
        asked = server.asked("GET", "/where/app/")
        assert said("--pull", "never", name) == said("--pull", "missing", name) == said(name)
        assert server.asked("GET", "/where/app/") == asked
        newer = image(store, name, 3, Cmd=["cat", "/etc/layer2"])
        push(store, name, name)
        assert said(name) == f"{name} 1"
        assert command("run", "--pull", "always", name).stdout == f"{name} 2"
        found = Store(other).find(name)
        assert found is not None
        assert found.digest == newer.digest != made.digest
        assert f"the one in the store is for {made.config.platform}, not linux/s390x" in refused(
            "run", "--pull", "never", "--platform", "linux/s390x", name
        )
        line = refused("run", "--platform", "s390x", name)
        assert "nothing for linux/s390x: there is linux/amd64" in line
        absent = refused("run", f"{server.host}/where/absent")
        assert "absent" in absent
        assert "is none of always, missing, never" in refused("run", "--pull", "sometimes", name)
    finally:
        os.environ["CORTEN_HOME"] = own


def test_an_image_of_seventy_layers_and_one_of_many_equal_ones(
    made: Callable[..., Image], store: Store, said: Callable[..., str], command: Corten, tmp_path: Path
) -> None:
    layers = [layer(store, (f"n{number}", FILE, str(number)), ("last", FILE, str(number))) for number in range(70)]
    made("seventy", *layers)
    assert said("seventy", "ls -d /n* | wc -l; cat /last") == "70\n69"
    assert said("--read-only", "seventy", "cat /n0 /n69 /last") == "06969"
    assert said("--uidmap", "0:100000:65536", "--gidmap", "0:100000:65536", "seventy",
                "cat /last; stat -c %u:%g /last") == "690:0\n"  # fmt: skip
    twice = layer(store, ("twice", FILE, "2"))
    made("equal", *[twice, layers[0]] * 60)
    assert said("equal", "cat /twice /last") == "20"
    assert command("image", "export", "seventy", "-o", str(tmp_path / "flat.tar")).returncode == 0
    with tarfile.open(tmp_path / "flat.tar") as archive:
        assert {f"n{number}" for number in range(70)} <= set(archive.getnames())


def test_layers_are_never_copied_for_other_ids(
    made: Callable[..., Image], store: Store, said: Callable[..., str]
) -> None:
    made("ids", layer(store, ("owned", FILE, "x" * 3_000_000)))
    before = run("du", "-s", store.directory)
    listed = sorted(os.listdir(store.layers.directory))
    for maps in ("0:100000:65536", "0:300000:65536", "0:700000:1000"):
        options = ("--uidmap", maps, "--gidmap", maps)
        assert said(*options, "ids", "stat -c %u:%g /owned; chown 7:8 /owned; stat -c %u:%g /owned") == "0:0\n7:8\n"
    assert said("ids", "stat -c %u:%g /owned") == "0:0\n"
    assert sorted(os.listdir(store.layers.directory)) == listed
    assert run("du", "-s", store.directory) == before


def test_a_container_keeps_its_image(
    made: Callable[..., Image], store: Store, command: Corten
) -> None:
    made("kept", layer(store, ("big", FILE, "y" * 100_000)))
    words = [CORTEN, "run", "-i", "kept", "read x; wc -c < /big"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin
        name = "kept"
        while not _mounted(store):
            assert process.poll() is None
        assert command("system", "df", "--json").returncode == 0
        assert command("image", "rm", name).returncode == 0
        assert command("image", "prune", "--all").returncode == 0
        process.stdin.write("\n")
        process.stdin.close()
        assert process.stdout
        assert process.stdout.read().strip() == "100000"
    assert command("image", "prune", "--all").returncode == 0
    assert os.listdir(store.layers.directory) == []


def _mounted(store: Store) -> bool:
    """Whether a layer is held, as by a container."""
    return any(not _alone(os.path.dirname(store.layers.path(diff_id))) for diff_id in store.layers.all())


def _alone(path: str) -> bool:
    import fcntl

    fd = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(fd)
    return True


def test_looking_whether_an_image_is_in_use_is_not_in_the_way_of_starts(
    made: Callable[..., Image], store: Store, said: Callable[..., str]
) -> None:
    """Who looks locks a layer alone for a moment: that a start meets it must not look like a removal."""
    found = made("looked-at")
    stop = threading.Event()

    def look() -> None:
        while not stop.is_set():
            removal.in_use(store, found)

    lookers = [threading.Thread(target=look) for _ in range(2)]
    for looker in lookers:
        looker.start()
    try:
        for _ in range(12):
            assert said("looked-at", "echo up") == "up\n"
    finally:
        stop.set()
        for looker in lookers:
            looker.join()
