"""Detection from the text of /proc, and where groups go."""

from __future__ import annotations

import pickle

import pytest

from corten.errors import InvalidInput, Unsupported
from corten.linux.cgroup import group
from corten.linux.cgroup.layout import Hierarchy, Layout, parse

HYBRID_MOUNTS = """\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
"""
HYBRID_OWN = "9:name=systemd:/\n4:memory:/job/1\n1:cpu,cpuacct:/\n0::/init.scope\n"


def no_controllers(_: str) -> tuple[str, ...]:
    return ()


def test_hybrid() -> None:
    found = parse(HYBRID_MOUNTS, HYBRID_OWN, no_controllers)
    assert found == Layout(
        "hybrid",
        (
            Hierarchy(1, ("cpu", "cpuacct"), "/sys/fs/cgroup/cpu,cpuacct", "/"),
            Hierarchy(1, ("memory",), "/sys/fs/cgroup/memory", "/job/1"),
            Hierarchy(1, ("name=systemd",), "/sys/fs/cgroup/systemd", "/"),
            Hierarchy(2, (), "/sys/fs/cgroup/unified", "/init.scope"),
        ),
    )
    assert pickle.loads(pickle.dumps(found)) == found


def test_pure_v2_with_a_space_in_the_mount_point() -> None:
    mounts = "9 1 0:3 / /mnt/a\\040b rw - cgroup2 none rw\n"
    found = parse(mounts, "0::/user.slice\n", lambda path: (path,))
    assert found == Layout("v2", (Hierarchy(2, ("/mnt/a b",), "/mnt/a b", "/user.slice"),))


def test_a_part_of_the_tree_bound_into_a_container() -> None:
    mounts = "9 1 0:3 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    found = parse(mounts, "4:memory:/docker/abc/inner\n", no_controllers)
    assert found.kind == "v1"
    assert found.hierarchies[0].own == "/inner"
    assert parse(mounts, "4:memory:/docker/abc\n", no_controllers).hierarchies[0].own == "/"


@pytest.mark.parametrize("own", ["4:memory:/docker/abcd\n", "4:memory:/../other\n", "3:cpu:/docker/abc\n", ""])
def test_a_hierarchy_that_does_not_show_our_group_is_left_out(own: str) -> None:
    mounts = "9 1 0:3 /docker/abc /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    assert parse(mounts, own, no_controllers).hierarchies == ()


def test_nothing_mounted() -> None:
    assert parse("1 1 0:1 / / rw - ext4 /dev/vda rw\n", "0::/\n", no_controllers) == Layout("v2", ())


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "a\nb"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(InvalidInput, match="not a name"):
        group.place(Layout("v2", ()), name)


def test_a_parent_must_not_climb() -> None:
    with pytest.raises(InvalidInput, match="not a path"):
        group.place(Layout("v2", ()), "a", parent="/a/../b")


def test_no_hierarchy_is_an_error_only_when_one_is_needed() -> None:
    assert group.place(Layout("v2", ()), "a").dirs == ()
    with pytest.raises(Unsupported, match="memory: no cgroup file system is mounted"):
        group.place(Layout("v2", ()), "a", need={"memory"})


def test_a_controller_that_the_kernel_lacks() -> None:
    layout = Layout("v1", (Hierarchy(1, ("memory",), "/nonexistent", "/"),))
    with pytest.raises(Unsupported, match="offers no rdma controller"):
        group.place(layout, "a", need={"rdma"})


def test_a_hierarchy_that_cannot_be_written_is_left_out_or_an_error() -> None:
    layout = Layout("v1", (Hierarchy(1, ("memory",), "/proc/no-such-directory", "/"),))
    placed = group.place(layout, "a")
    assert placed.dirs == ()
    assert group.left_out(layout, placed) == ("memory",)
    with pytest.raises(Unsupported, match="no control group for memory"):
        group.place(layout, "a", need={"memory"})
