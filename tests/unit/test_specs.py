"""Options into specs: what docker and podman users expect, and what the program inside should see."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from corten.engine.facts import HostFacts
from corten.engine.options import RunOptions, make
from corten.engine.specs import THREAD_COUNTS, files, to_spec, user_of
from corten.engine.users import Identity
from corten.errors import InvalidInput, Unsupported
from corten.images.sources import Bind, RootSource
from corten.linux import capabilities
from corten.linux.cgroup.resources import Cpu, Device, Memory, Resources
from corten.linux.idmap import IdMapping
from corten.runtime import defaults
from corten.runtime.spec import Linux, Mount, Namespace, Process, Spec, TimeOffset, validate

ROOT = HostFacts(nodename="machine")
MAPS = (IdMapping(0, 1000, 1),)
USER = ROOT.replace(uid=1000, gid=1000, uid_maps=MAPS, gid_maps=MAPS)
BARE = RootSource(lowers=())


def spec_of(facts: HostFacts = ROOT, root: RootSource = BARE, **given: Any) -> Spec:
    options = make("host", ["true"], **given)
    spec = to_spec(options, root, facts, user_of(options, root, facts), "0123456789abcdef")
    validate(spec)
    return spec


def process_of(**given: Any) -> Process:
    process = spec_of(**given).process
    assert process is not None
    return process


def linux_of(**given: Any) -> Linux:
    linux = spec_of(**given).linux
    assert linux is not None
    return linux


def resources_of(**given: Any) -> Resources:
    found = linux_of(**given).resources
    assert found is not None
    return found


def env_of(**given: Any) -> dict[str, str]:
    return dict(entry.split("=", 1) for entry in process_of(**given).env)


def mounts_of(**given: Any) -> dict[str, Mount]:
    mounts = spec_of(**given).mounts
    assert len({mount.destination for mount in mounts}) == len(mounts)
    return {mount.destination: mount for mount in mounts}


# --- limits


def test_nothing_asked_for_means_nothing_written() -> None:
    assert resources_of() == Resources(devices=defaults.DEVICE_RULES)
    assert resources_of(facts=USER) == Resources()


def test_memory_brings_twice_as_much_with_swap_if_the_kernel_can() -> None:
    assert resources_of(memory="100m").memory == Memory(limit=100 << 20, swap=200 << 20)
    assert resources_of(memory="100m", facts=ROOT.replace(swap=False)).memory == Memory(limit=100 << 20)
    assert resources_of(memory="100m", memory_swap=-1).memory == Memory(limit=100 << 20, swap=-1)
    assert resources_of(memory="100m", memory_swap="100m").memory == Memory(limit=100 << 20, swap=100 << 20)


@pytest.mark.parametrize(("cpus", "quota"), [("1.5", 150_000), (0.01, 1000), ("0.29", 29_000), (3, 300_000)])
def test_cpus_are_a_quota(cpus: float, quota: int) -> None:
    assert resources_of(cpus=cpus).cpu == Cpu(quota=quota, period=100_000)


@pytest.mark.parametrize(
    ("given", "count"),
    [
        ({"cpus": 1.5}, 2),
        ({"cpus": 0.5}, 1),
        ({"cpus": 2}, 2),
        ({"cpuset_cpus": "0-2,5"}, 4),
        ({"cpus": 3, "cpuset_cpus": "1"}, 1),
        ({"cpu_quota": 250_000}, 3),
        ({"cpu_quota": 10_000, "cpu_period": 5000}, 2),
    ],
)
def test_thread_counts_follow_the_cpu_limit(given: dict[str, Any], count: int) -> None:
    env = env_of(**given)
    assert {env[name] for name in THREAD_COUNTS} == {str(count)}
    assert env_of(**given, env={"OMP_NUM_THREADS": "9"})["OMP_NUM_THREADS"] == "9"
    assert not set(THREAD_COUNTS) & set(env_of())


def test_shm_follows_the_memory_limit() -> None:
    for given, size in (({}, 64 << 20), ({"memory": "1g"}, 512 << 20), ({"memory": "1g", "shm_size": "2m"}, 2 << 20)):
        assert f"size={size}" in mounts_of(**given)["/dev/shm"].options


def test_other_limits_reach_their_place() -> None:
    found = resources_of(
        pids=64,
        blkio_weight=100,
        hugetlb={"2m": "4m"},
        rdma=["mlx:handles=2"],
        net_class="0x100001",
        net_priority={"lo": 3},
        cgroup_conf={"memory.high": "100M"},
        device_cgroup_rules=["c 10:* rw", "a *:* m"],
    )
    assert found.pids is not None
    assert found.pids.limit == 64
    assert found.block_io is not None
    assert found.block_io.weight == 100
    assert [(one.page_size, one.limit) for one in found.hugepage_limits] == [("2MB", 4 << 20)]
    assert (found.rdma["mlx"].hca_handles, found.rdma["mlx"].hca_objects) == (2, None)
    assert found.network is not None
    assert found.network.class_id == 0x100001
    assert found.unified == {"memory.high": "100M"}
    assert found.devices[-2:] == (Device(True, "c", 10, None, "rw"), Device(True, None, None, None, "m"))


def test_resource_limits_are_held_against_what_we_may_raise() -> None:
    facts = ROOT.replace(hard_limits=(("nofile", 20000),))
    limit = process_of(facts=facts, ulimits={"nofile": "10:20000"}).rlimits[0]
    assert (limit.type, limit.soft, limit.hard) == ("RLIMIT_NOFILE", 10, 20000)
    for text in ("20001", "unlimited"):
        with pytest.raises(InvalidInput, match=r"^--ulimit nofile=.* 20000, and only CAP_SYS_RESOURCE may raise it$"):
            spec_of(facts=facts, ulimits={"nofile": text})


# --- the process


def test_environment_is_the_defaults_then_the_image_then_the_user() -> None:
    root = BARE.replace(env={"PATH": "/image", "A": "image", "B": "image"})
    env = env_of(root=root, env={"B": "user"})
    assert env == {"PATH": "/image", "HOSTNAME": "0123456789ab", "HOME": "/root", "A": "image", "B": "user"}
    assert env_of(tty=True)["TERM"] == "xterm"
    assert env_of(uts="host")["HOSTNAME"] == "machine"
    assert env_of(hostname="box")["HOSTNAME"] == "box"


def test_user_names_are_those_of_the_root(tmp_path: Path) -> None:
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    for layer, uid in ((upper, 5), (lower, 6)):
        (layer / "etc").mkdir(parents=True)
        (layer / "etc/passwd").write_text(f"ann:x:{uid}:7::/home/ann:/bin/sh\n")
    (lower / "etc/group").write_text("audio:x:29:ann\n")
    root = RootSource(lowers=(str(upper), str(lower)))
    process = process_of(root=root, user="ann")
    assert (process.user.uid, process.user.gid, process.user.additional_gids) == (5, 7, (29,))
    assert "HOME=/home/ann" in process.env


def test_a_link_in_the_root_does_not_reach_the_hosts_users(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/passwd").symlink_to("/etc/passwd")
    with pytest.raises(InvalidInput, match="no user 'daemon'"):
        spec_of(root=RootSource(lowers=(str(tmp_path),)), user="daemon")


def test_keep_id_runs_as_the_caller() -> None:
    own = (IdMapping(1000, 1000, 1),)
    user = process_of(facts=USER.replace(uid_maps=own, gid_maps=own), userns="keep-id").user
    assert (user.uid, user.gid) == (1000, 1000)


def test_users_and_groups_that_are_asked_for_must_be_mapped() -> None:
    alone = USER.replace(few_ids="no range: add one")
    with pytest.raises(InvalidInput, match=r"^--user: the container's user namespace has no user 5: no range: add"):
        process_of(facts=alone, user="5")
    with pytest.raises(InvalidInput, match=r"^--user: .* has no group 7: no range"):
        process_of(facts=alone, user="0:7")
    with pytest.raises(InvalidInput, match=r"^--group-add: .* has no group 5: no range"):
        process_of(facts=alone, group_add=["5"])
    ranged = USER.replace(uid_maps=(*MAPS, IdMapping(1, 100000, 9)), gid_maps=(*MAPS, IdMapping(1, 100000, 9)))
    assert process_of(facts=ranged, user="5:7", group_add=["9"]).user.additional_gids == (9,)
    with pytest.raises(InvalidInput, match=r"^--group-add: the container's user namespace has no group 10$"):
        process_of(facts=ranged, group_add=["10"])


def test_memberships_that_the_image_lists_are_left_out_where_they_are_not_mapped(tmp_path: Path) -> None:
    etc = tmp_path / "etc"
    etc.mkdir()
    (etc / "passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (etc / "group").write_text("root:x:0:root\nbin:x:1:root\nwheel:x:10:root\n")
    root = RootSource(lowers=(str(tmp_path),))
    assert process_of(facts=USER.replace(few_ids="no range"), root=root).user.additional_gids == ()
    ranged = USER.replace(gid_maps=(*MAPS, IdMapping(1, 100000, 9)))
    assert process_of(facts=ranged, root=root).user.additional_gids == (0, 1)
    assert process_of(root=root).user.additional_gids == (0, 1, 10)


def test_capabilities_for_root() -> None:
    sets = process_of(cap_add=["net_admin"], cap_drop=["CAP_CHOWN"]).capabilities
    assert sets is not None
    assert set(sets.bounding) == {*capabilities.DEFAULT.bounding, "CAP_NET_ADMIN"} - {"CAP_CHOWN"}
    assert sets.bounding == sets.effective == sets.permitted
    assert sets.inheritable == sets.ambient == ()


def test_capabilities_all() -> None:
    none = process_of(cap_drop=["ALL"], cap_add=["CHOWN"]).capabilities
    assert none is not None
    assert none.effective == ("CAP_CHOWN",)
    most = process_of(cap_drop=["SYS_ADMIN"], cap_add=["all"]).capabilities
    assert most is not None
    assert set(most.effective) == set(capabilities.ALL) - {"CAP_SYS_ADMIN"}
    ours = ROOT.replace(capabilities=("CAP_KILL", "CAP_SYS_ADMIN"))
    some = process_of(cap_add=["ALL", "NET_RAW"], facts=ours).capabilities
    assert some is not None
    assert some.effective == ("CAP_KILL", "CAP_NET_RAW", "CAP_SYS_ADMIN")  # what was named is not left out


def test_another_user_has_only_what_was_added() -> None:
    plain, more = (process_of(user="5", cap_add=added).capabilities for added in ([], ["NET_ADMIN"]))
    assert plain is not None
    assert more is not None
    assert plain.effective == plain.permitted == plain.ambient == ()
    assert set(plain.bounding) == set(capabilities.DEFAULT.bounding)
    assert more.effective == more.ambient == more.inheritable == ("CAP_NET_ADMIN",)


def test_a_capability_that_is_none() -> None:
    with pytest.raises(InvalidInput, match=r"^--cap-add: there is no capability 'net_admn'; did you mean CAP_NET"):
        spec_of(cap_add=["net_admn"])


def test_words_of_the_command() -> None:
    assert process_of(entrypoint="sh").args == ("sh", "true")
    assert process_of(user="7", umask="077", workdir="/w", oom_score_adj=5).user.umask == 0o77
    with pytest.raises(InvalidInput, match=r"^there is no command"):
        to_spec(make("host"), BARE, ROOT, Identity(0, 0), "0")


def test_rights_are_tight_by_default() -> None:
    assert process_of().no_new_privileges
    assert not process_of(no_new_privileges=False).no_new_privileges
    assert linux_of().readonly_paths == defaults.READONLY_PATHS
    assert set(defaults.MASKED_PATHS) <= set(linux_of().masked_paths)


def test_masks_and_unmasks() -> None:
    linux = linux_of(mask=["/secret"], unmask=["/proc/kcore", "/proc/sys"])
    assert "/secret" in linux.masked_paths
    assert "/proc/kcore" not in linux.masked_paths
    assert "/proc/sys" not in linux.readonly_paths
    bare = linux_of(unmask=["ALL"])
    assert bare.masked_paths == bare.readonly_paths == ()


# --- namespaces and mounts


def kinds(**given: Any) -> dict[str, str]:
    return {space.type: space.path for space in linux_of(**given).namespaces}


def test_all_namespaces_are_new_by_default() -> None:
    assert set(kinds()) == set(defaults.NAMESPACES)
    assert set(kinds(facts=USER)) == {*defaults.NAMESPACES, "user"}
    assert linux_of(facts=USER).uid_mappings == MAPS


def test_namespaces_of_the_host_and_of_others() -> None:
    found = kinds(network="host", pid="host", ipc="ns:/proc/self/ns/ipc", cgroupns="host", timens="host", uts="host")
    assert found == {"mount": "", "ipc": "/proc/self/ns/ipc"}
    assert Namespace("user", "/proc/self/ns/user") in linux_of(userns="ns:/proc/self/ns/user").namespaces
    assert linux_of(time_offset=["boottime=-1.5"]).time_offsets == {"boottime": TimeOffset(-2, 500_000_000)}


def test_sysctls_belong_to_a_namespace_of_the_container() -> None:
    assert linux_of(sysctls={"net.core.somaxconn": 5, "kernel.msgmax": 6}).sysctl == {
        "net.core.somaxconn": "5",
        "kernel.msgmax": "6",
    }
    for given, words in (
        ({"sysctls": {"vm.swappiness": 1}}, "--sysctl vm.swappiness: it belongs to the whole machine"),
        ({"sysctls": {"net.a": 1}, "network": "host"}, "--sysctl net.a: with --network host it would change the host"),
        ({"sysctls": {"kernel.hostname": "x"}}, "--sysctl kernel.hostname: use --hostname"),
    ):
        with pytest.raises(InvalidInput, match="^" + words):
            spec_of(**given)


def test_mounts_go_from_the_outside_in(tmp_path: Path) -> None:
    options = make("host", ["true"], volumes=[f"{tmp_path}:/a/b/c", f"{tmp_path}:/a"], tmpfs=["/a/b"])
    own = [mount.destination for mount in to_spec(options, BARE, ROOT, Identity(0, 0), "0").mounts][-3:]
    assert own == ["/a", "/a/b", "/a/b/c"]


def test_a_mount_of_the_user_takes_the_place_of_a_default_one(tmp_path: Path) -> None:
    assert mounts_of(tmpfs=["/dev/shm:size=1m"])["/dev/shm"].options == (
        "noexec", "nosuid", "nodev", "size=1048576", "mode=1777", "rw",
    )  # fmt: skip
    root = BARE.replace(binds=(Bind("/tmp", "/work"), Bind("/etc", "/single", read_only=False, recursive=False)))
    assert mounts_of(root=root)["/work"].options == ("rbind", "rprivate", "nosuid", "nodev", "rro")
    assert mounts_of(root=root)["/single"].options == ("bind", "rprivate", "nosuid", "nodev")
    assert mounts_of(root=root, volumes=[f"{tmp_path}:/work"])["/work"].source == str(tmp_path)


def test_read_only_binds_are_so_with_all_below(tmp_path: Path) -> None:
    source = str(tmp_path)
    assert mounts_of(volumes=[f"{source}:/x:ro"])["/x"].options == ("rbind", "rprivate", "rro")
    loose = f"type=bind,src={source},dst=/x,ro,bind-recursive=writable"
    assert mounts_of(mounts=[loose])["/x"].options == ("rbind", "rprivate", "ro")
    assert mounts_of(mounts=[f"type=bind,src={source},dst=/x,bind-nonrecursive"])["/x"].options == ("bind", "rprivate")


def test_mapped_binds(tmp_path: Path) -> None:
    text = f"{tmp_path}:/x:idmap"
    assert mounts_of(facts=USER.replace(uid=0), volumes=[text])["/x"].options[-1] == "ridmap"
    with pytest.raises(Unsupported, match=r"^volumes: idmap: only root may map"):
        spec_of(facts=USER, volumes=[text])
    with pytest.raises(InvalidInput, match=r"^volumes: idmap of .* needs a user namespace"):
        spec_of(volumes=[text])
    assert mounts_of(volumes=[f"{text}=uids=0-5-1;gids=0-5-1"])["/x"].uid_mappings == (IdMapping(0, 5, 1),)


def test_propagation_of_the_root_follows_the_binds(tmp_path: Path) -> None:
    assert linux_of().rootfs_propagation == "private"
    assert linux_of(volumes=[f"{tmp_path}:/x:rslave"]).rootfs_propagation == "slave"
    assert linux_of(volumes=[f"{tmp_path}:/x:rslave", f"{tmp_path}:/y:rshared"]).rootfs_propagation == "shared"


def test_file_systems_of_the_host_are_bound_where_a_user_namespace_may_not_mount_them() -> None:
    own = mounts_of(facts=USER)
    assert (own["/sys"].type, own["/proc"].type) == ("sysfs", "proc")
    shared = mounts_of(facts=USER, network="host", pid="host", ipc="host")
    for where in ("/sys", "/proc", "/dev/shm", "/dev/mqueue"):
        assert (shared[where].type, shared[where].source) == ("bind", where)
    assert "rro" in shared["/sys"].options
    assert mounts_of(network="host")["/sys"].type == "sysfs"
    assert "/dev/mqueue" not in mounts_of(ipc="host", facts=ROOT.replace(mqueue=False))
    assert not [word for word in own["/dev/pts"].options if word.startswith("gid=")]


def test_devices_are_nodes_for_root_and_binds_in_a_user_namespace() -> None:
    given = {"devices": ["/dev/zero:/dev/mine:rw"]}
    device = linux_of(**given).devices[0]
    assert (device.path, device.type, device.major, device.minor) == ("/dev/mine", "c", 1, 5)
    assert resources_of(**given).devices[-1] == Device(True, "c", 1, 5, "rw")
    assert linux_of(facts=USER, **given).devices == ()
    assert mounts_of(facts=USER, **given)["/dev/mine"].source == "/dev/zero"


# --- names and files


def test_the_host_name_is_the_id_unless_named() -> None:
    assert spec_of().hostname == "0123456789ab"
    assert spec_of(hostname="box", domainname="d").domainname == "d"
    assert spec_of(uts="host").hostname == ""


def files_of(options: RunOptions) -> dict[str, str]:
    return dict(files(options, to_spec(options, BARE, ROOT, Identity(0, 0), "0123456789abcdef")))


def test_small_files(tmp_path: Path) -> None:
    found = files_of(make("host", ["true"], hostname="box"))
    assert found["/etc/hostname"] == "box\n"
    assert "127.0.1.1\tbox\n" in found["/etc/hosts"]
    assert set(files_of(make("host", ["true"], network="host"))) == {"/etc/hostname"}
    assert files_of(make("host", ["true"], uts="host")) == {}
    assert files_of(make("", ["true"], rootfs=tmp_path)) == {}
    assert set(files_of(make("", ["true"], rootfs=tmp_path, writable="tmpfs"))) == {"/etc/hostname", "/etc/hosts"}
    assert set(files_of(make("host", ["true"], volumes=["/etc/hosts:/etc/hosts"]))) == {"/etc/hostname"}
    assert files_of(make("host", ["true"], volumes=["/etc:/etc"])) == {}
