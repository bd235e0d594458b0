"""Functions in other root file systems than the host's, with another Python in them."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

import corten
import python_root
import small_root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OFFSET = 5


class Pair:
    def __init__(self, left: int, right: int) -> None:
        self.left, self.right = left, right

    def sum(self) -> int:
        return self.left + self.right


def shifted(x: int) -> int:
    return x + OFFSET


def there(x: int) -> dict[str, Any]:
    return {
        "value": Pair(shifted(x), math.floor(2.5)).sum(),
        "python": tuple(sys.version_info[:2]),
        "pid": os.getpid(),
        "uid": os.getuid(),
        "root": sorted(os.listdir("/")),
        "map": Path("/proc/self/uid_map").read_text().split(),
    }


def test_another_python_gets_the_source() -> None:
    root, version = python_root.shared()
    function = corten.function(image=root, memory="100m")(there)
    found = function.remote(21)
    assert (found["value"], found["python"], found["pid"], found["uid"]) == (28, version, 2, 0)
    assert "home" not in found["root"]
    assert found["map"][1] != "0"  # a user namespace of its own: the image is not trusted with the host's root
    assert [one["value"] for one in function.map([1, 2, 3])] == [8, 9, 10]


@corten.function
def other(x: int) -> int:
    return x * 2


def nested(x: int) -> tuple[int, str]:
    try:
        return other(x), str(other.remote(x))
    except RuntimeError as error:
        return other(x), str(error)


def test_functions_that_refer_to_functions_in_containers() -> None:
    root, _ = python_root.shared()
    value, said = corten.function(image=root, memory="100m")(nested).remote(4)
    assert value == 8
    assert said.startswith("other: a call in a container cannot make calls in further containers")


def test_modules_of_ones_own_go_along(tmp_path: Path) -> None:
    """A program of two files, as people write them, in an image that has neither."""
    same = python_root.same()
    helping = """
from further import further
class Box:
    def __init__(self, x):
        self.x = x
def shifted(x):
    return further(x) + 1
"""
    (tmp_path / "helping.py").write_text(helping)
    (tmp_path / "further.py").write_text("def further(x):\n    return x + 100\n")
    (tmp_path / "main.py").write_text(f"""
import corten, helping
@corten.function(image={same!r}, memory="100m", returns=[helping.Box])
def work(box):
    import sys
    assert "helping" not in sys.modules
    return helping.Box(helping.shifted(box.x))
print(work.remote(helping.Box(5)).x, type(work.remote(helping.Box(5))) is helping.Box)
""")
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=tmp_path, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.stdout == "106 True\n", done.stderr


def test_ends_and_isolation_in_an_image() -> None:
    root, _ = python_root.shared()

    @corten.function(image=root, memory="60m", timeout=20)
    def act(how: str) -> Any:
        if how == "memory":
            return len(bytearray(200 << 20))
        if how == "raise":
            raise ValueError("from there")
        if how == "write":
            with open("/tmp/trace", "w") as file:
                file.write("here")
        if how == "mount":
            return os.system("mount -t tmpfs x /tmp 2>/dev/null")
        return os.path.exists("/tmp/trace"), [pid for pid in os.listdir("/proc") if pid.isdigit()]

    with pytest.raises(corten.OutOfMemory):
        act.remote("memory")
    with pytest.raises(ValueError, match="from there"):
        act.remote("raise")
    assert act.remote("write") == (True, ["1", "2"])
    assert act.remote("look") == (False, ["1", "2"])
    assert act.remote("mount") != 0


def test_what_cannot_go_to_another_python_is_named_before_the_call() -> None:
    root, _ = python_root.shared()
    offset = 1

    @corten.function(image=root)
    def closure() -> int:
        return offset

    with pytest.raises(corten.InvalidInput, match="define it at the top level of a module"):
        closure.remote()
    with pytest.raises(corten.InvalidInput, match="a lambda has no source"):
        corten.function(image=root)(lambda: 1).remote()
    with pytest.raises(corten.InvalidInput, match="its arguments hold byte code"):
        corten.function(image=root)(map_over).remote(lambda x: x)


def map_over(function: Any) -> Any:
    return function(1)


def test_modules_and_pythons_that_are_missing(tmp_path: Path) -> None:
    root, _ = python_root.shared()
    with pytest.raises(corten.InvalidInput, match="import numpy: ModuleNotFoundError"):
        corten.function(image=root, imports=["numpy"])(there).remote(1)
    with pytest.raises(corten.Error, match="python3: not found"):
        corten.function(image=small_root.shared())(there).remote(1)
    old = small_root.make(tmp_path / "old")
    (old / "usr/bin").mkdir(parents=True)
    (old / "usr/bin/python3").write_text("#!/bin/sh\nprintf 'failed its Python 2.7 is too old' >&0\n")
    (old / "usr/bin/python3").chmod(0o755)
    with pytest.raises(corten.InvalidInput, match=r"Python 2.7 is too old"):
        corten.function(image=str(old))(there).remote(1)
    with pytest.raises(corten.InvalidInput, match="does not look like a root"):
        corten.function(image=str(tmp_path))(there).remote(1)


def test_images_by_name_and_as_they_are_described(home: Path, tmp_path: Path) -> None:
    root, version = python_root.shared()
    archive = tmp_path / "root.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    corten_command = Path(sys.executable).parent / "corten"
    subprocess.run([corten_command, "image", "import", archive, "some-python"], check=True, capture_output=True)
    try:
        assert corten.function(image="some-python")(there).remote(1)["python"] == version
        (tmp_path / "shown").write_text("from here")
        image = corten.Image("some-python").run("echo made > /etc/made").env(COLOUR="red")
        image = image.add_local_file(tmp_path / "shown", "/etc/shown")

        @corten.function(image=image)
        def look() -> tuple[str, ...]:
            made, shown = (open(f"/etc/{name}").read() for name in ("made", "shown"))  # noqa: SIM115
            return made, shown, os.environ["COLOUR"]

        assert look.remote() == ("made\n", "from here", "red")
    finally:
        corten.shutdown()
        subprocess.run([corten_command, "image", "rm", "some-python"], check=True, capture_output=True)
    with pytest.raises(corten.InvalidInput, match=r"neither a name nor a corten\.Image"):
        corten.function(image=3)(there)


def test_as_an_ordinary_user() -> None:
    import ordinary_user

    user = ordinary_user.User()
    try:
        program = Path(user.home, "program.py")
        program.write_text(PROGRAM)
        done = user.process(user.python, str(program), timeout=120)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        assert done.stdout.splitlines() == ["6 2 0", "ZeroDivisionError", "8388608 True", "no control group"]
        assert user.leftovers() == []
    finally:
        user.close()


PROGRAM = """
import os, corten
@corten.function(best_effort=True, timeout=60)
def double(x):
    return 12 / x, os.getpid(), os.getuid()
value = double.remote(2)
print(int(value[0]), *value[1:])
try:
    double.remote(0)
except ZeroDivisionError:
    print("ZeroDivisionError")
import pickle
big = b"x" * (8 << 20)
again = corten.function(best_effort=True)(lambda buffer: (buffer, pickle.PickleBuffer(bytes(buffer))))
one, other = again.remote(pickle.PickleBuffer(big))
print(len(one), one == other == big)
try:
    double.with_options(best_effort=False).remote(1)
except corten.Unsupported as error:
    print(str(error)[:16])
"""


@pytest.mark.parametrize("end", ["shutdown", "pool"])
def test_a_zygote_that_is_being_made_when_all_is_closed(end: str, tmp_path: Path) -> None:
    """It loads modules for ever; nothing of it may be left, and nobody may wait for it."""
    root, _ = python_root.shared()
    os.mkfifo(tmp_path / "here")
    (tmp_path / "here").chmod(0o666)
    endless = "open('/run/corten/here', 'w').close()\nimport threading\nthreading.Event().wait()\n"
    (tmp_path / "endless.py").write_text(endless)
    mounts = [f"type=bind,src={tmp_path}/{name},dst=/run/corten/{name}" for name in ("here", "endless.py")]
    function = corten.function(image=root, memory="100m", imports=["endless"], mounts=mounts)(shifted)
    with corten.Pool(function) as pool:
        call = pool.spawn(1)
        with open(tmp_path / "here") as file:
            assert file.read() == ""  # its module is being loaded
        if end == "shutdown":
            corten.shutdown()
    with pytest.raises(corten.Cancelled):
        call.get(30)
    corten.shutdown()
