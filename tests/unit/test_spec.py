"""The OCI configuration: every field there and back, errors that name the field, and the defaults."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corten.errors import InvalidInput, NotFound
from corten.records import Record
from corten.runtime import defaults, spec
from corten.runtime.spec import decoding, values
from corten.runtime.spec.keys import json_key

# One value for every field that the specification has for Linux; written from its tables, not copied from its examples.
_IDS = [{"containerID": 0, "hostID": 100000, "size": 65536}]
_HOOK = {"path": "/usr/bin/hook", "args": ["hook", "-v"], "env": ["A=1"], "timeout": 5}
_RATE = [{"major": 8, "minor": 16, "rate": 1048576}]
WHOLE: dict[str, Any] = {
    "ociVersion": "1.3.0",
    "process": {
        "terminal": True,
        "consoleSize": {"height": 24, "width": 80},
        "user": {"uid": 1, "gid": 2, "umask": 0, "additionalGids": [5, 6], "username": "someone"},
        "args": ["sh", "-c", "echo größe"],
        "env": ["PATH=/bin", "EMPTY="],
        "cwd": "/srv",
        "capabilities": {
            name: ["CAP_KILL"] for name in ("bounding", "effective", "inheritable", "permitted", "ambient")
        },
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 2**64 - 1, "soft": 1024}],
        "noNewPrivileges": True,
        "apparmorProfile": "a-profile",
        "selinuxLabel": "a:label",
        "oomScoreAdj": -1,
        "scheduler": {
            "policy": "SCHED_DEADLINE",
            "nice": 1,
            "priority": 2,
            "flags": ["SCHED_FLAG_RECLAIM"],
            "runtime": 1,
            "deadline": 2,
            "period": 3,
        },
        "ioPriority": {"class": "IOPRIO_CLASS_BE", "priority": 4},
        "execCPUAffinity": {"initial": "0-1", "final": "2"},
    },
    "root": {"path": "rootfs", "readonly": True},
    "hostname": "box",
    "domainname": "example.test",
    "mounts": [
        {
            "destination": "/data",
            "type": "none",
            "source": "/srv/data",
            "options": ["rbind", "idmap"],
            "uidMappings": _IDS,
            "gidMappings": _IDS,
        }
    ],
    "hooks": {
        name: [_HOOK]
        for name in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
    },
    "annotations": {"org.example.key": "value"},
    "linux": {
        "namespaces": [
            {"type": "network", "path": "/proc/1/ns/net"},
            *({"type": kind} for kind in ("cgroup", "ipc", "mount", "pid", "time", "user", "uts")),
        ],
        "uidMappings": _IDS,
        "gidMappings": _IDS,
        "timeOffsets": {"monotonic": {"secs": -5, "nanosecs": 7}, "boottime": {"secs": 1}},
        "devices": [
            {"path": "/dev/x", "type": "c", "major": 10, "minor": 229, "fileMode": 438, "uid": 0, "gid": 0},
            {"path": "/run/pipe", "type": "p"},
        ],
        "netDevices": {"eth7": {"name": "lan"}},
        "cgroupsPath": "/corten/one",
        "resources": {
            "devices": [{"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rwm"}],
            "memory": {
                "limit": -1,
                "reservation": 1,
                "swap": 2,
                "kernel": 3,
                "kernelTCP": 4,
                "swappiness": 0,
                "disableOOMKiller": False,
                "useHierarchy": True,
                "checkBeforeUpdate": True,
            },
            "cpu": {
                "shares": 1024,
                "quota": -1,
                "burst": 10,
                "period": 100000,
                "realtimeRuntime": 1,
                "realtimePeriod": 2,
                "cpus": "0-3",
                "mems": "0",
                "idle": 0,
            },
            "pids": {"limit": 20},
            "blockIO": {
                "weight": 10,
                "leafWeight": 11,
                "weightDevice": [{"major": 8, "minor": 0, "weight": 500, "leafWeight": 300}],
                "throttleReadBpsDevice": _RATE,
                "throttleWriteBpsDevice": _RATE,
                "throttleReadIOPSDevice": _RATE,
                "throttleWriteIOPSDevice": _RATE,
            },
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4194304}],
            "network": {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]},
            "rdma": {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 4}},
            "unified": {"memory.high": "1073741824"},
        },
        "rootfsPropagation": "rslave",
        "seccomp": {
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "listenerPath": "/run/listener",
            "listenerMetadata": "opaque",
            "syscalls": [
                {
                    "names": ["personality"],
                    "action": "SCMP_ACT_ALLOW",
                    "errnoRet": 1,
                    "args": [{"index": 0, "value": 2**64 - 1, "valueTwo": 5, "op": "SCMP_CMP_MASKED_EQ"}],
                }
            ],
        },
        "sysctl": {"net.ipv4.ip_forward": "1"},
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/sys"],
        "mountLabel": "another:label",
        "intelRdt": {
            "closID": "guaranteed",
            "schemata": ["L3:0=f"],
            "l3CacheSchema": "L3:0=f",
            "memBwSchema": "MB:0=20",
            "enableMonitoring": True,
            "enableCMT": True,
            "enableMBM": True,
        },
        "memoryPolicy": {"mode": "MPOL_BIND", "nodes": "0-1", "flags": ["MPOL_F_STATIC_NODES"]},
        "personality": {"domain": "LINUX32", "flags": ["NONE"]},
    },
}


def test_whole_document_there_and_back() -> None:
    whole = spec.decode(WHOLE)
    assert spec.encode(whole) == WHOLE
    assert spec.unknown_fields(WHOLE) == ()


def _classes(kind: type[Record], found: set[type[Record]]) -> set[type[Record]]:
    found.add(kind)
    for hint in decoding.types_of(kind).values():
        for part in (hint, *getattr(hint, "__args__", ())):
            if isinstance(part, type) and issubclass(part, Record) and part not in found:
                _classes(part, found)
    return found


def test_whole_document_has_every_field() -> None:
    """So that a field added to a record, or missing from one, is noticed by the test above."""

    def walk(value: Any, kind: Any) -> None:
        arguments = [one for one in getattr(kind, "__args__", ()) if one is not type(None)]
        if isinstance(kind, type) and issubclass(kind, Record):
            for field, hint in decoding.types_of(kind).items():
                if isinstance(value, dict) and json_key(field) in value:
                    seen.add((kind, field))
                    walk(value[json_key(field)], hint)
        elif isinstance(value, list):
            for item in value:
                walk(item, arguments[0])
        elif getattr(kind, "__origin__", None) is dict:
            for item in value.values():
                walk(item, arguments[1])
        elif arguments:
            walk(value, arguments[0])

    seen: set[tuple[type[Record], str]] = set()
    walk(WHOLE, spec.Spec)
    every = {(kind, field) for kind in _classes(spec.Spec, set()) for field in kind._fields}
    assert every - seen == set()


def test_tables_name_real_fields() -> None:
    names = {values.full_name(kind, field) for kind in _classes(spec.Spec, set()) for field in kind._fields}
    assert {*values.BOUNDS, *values.CHOICES, *values.REQUIRED} <= names


# --- any record that the types allow

_text = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=8)


def _values(hint: Any, name: str) -> st.SearchStrategy[Any]:
    arguments: tuple[Any, ...] = getattr(hint, "__args__", ())
    if getattr(hint, "__origin__", None) is tuple:
        return st.lists(_values(arguments[0], name), max_size=2).map(tuple)
    if getattr(hint, "__origin__", None) is dict:
        keys = st.sampled_from(values.CHOICES[name]) if name in values.CHOICES else _text
        return st.dictionaries(keys, _values(arguments[1], ""), max_size=2)
    if arguments:
        return st.none() | _values(arguments[0], name)
    if hint is str:
        return st.sampled_from(values.CHOICES[name]) if name in values.CHOICES else _text
    if hint is int:
        return st.integers(*values.BOUNDS.get(name, values.ANY))
    if hint is bool:
        return st.booleans()
    return _records(hint)


def _records(kind: type[Record]) -> st.SearchStrategy[Any]:
    hints = decoding.types_of(kind)
    return st.builds(kind, **{field: _values(hint, values.full_name(kind, field)) for field, hint in hints.items()})


@settings(max_examples=60)
@given(_records(spec.Spec))
def test_any_spec_survives_json(one: spec.Spec) -> None:
    again = spec.decode(json.loads(json.dumps(spec.encode(one))))
    assert again == one
    assert spec.unknown_fields(spec.encode(one)) == ()


@settings(max_examples=200)
@given(st.data())
def test_one_wrong_value_is_named(data: st.DataObject) -> None:
    """Replace any value of the whole document by one of another type: the error begins with its place."""
    document = json.loads(json.dumps(WHOLE))
    place = ""
    here: Any = document
    holder: Any = document
    key: Any = ""
    while isinstance(here, (dict, list)) and here:
        holder = here
        if isinstance(here, dict):
            key = data.draw(st.sampled_from(sorted(here)))
            place += decoding._member(key)
        else:
            key = data.draw(st.integers(0, len(here) - 1))
            place += f"[{key}]"
        here = here[key]
        if data.draw(st.booleans()):
            break
    wrong: Any = "text" if not isinstance(here, str) else 1.5
    holder[key] = wrong
    with pytest.raises(InvalidInput) as caught:
        spec.decode(document)
    line = str(caught.value)
    assert line.startswith(f"{place[1:]}: expected "), line
    assert "\n" not in line


@pytest.mark.parametrize(
    ("path", "value", "line"),
    [
        ("linux.resources.memory.limit", "1g", "linux.resources.memory.limit: expected integer, got string"),
        ("linux.resources.memory.limit", True, "linux.resources.memory.limit: expected integer, got boolean"),
        ("linux.resources.pids.limit", 1.0, "linux.resources.pids.limit: expected integer, got number"),
        ("linux.resources.pids.limit", 2**63, "linux.resources.pids.limit: 9223372036854775808 is outside "
         "-9223372036854775808 to 9223372036854775807"),
        ("process.user.uid", -1, "process.user.uid: -1 is outside 0 to 4294967295"),
        ("process.user.additionalGids", [0, 2**32], "process.user.additionalGids[1]: 4294967296 is outside"),
        ("process.args", "sh", "process.args: expected array, got string"),
        ("process.args", ["a", None], "process.args[1]: expected string, got null"),
        ("process.args", ["a\0b"], "process.args[0]: contains a NUL character"),
        ("process.args", ["\ud800"], "process.args[0]: contains half of a surrogate pair"),
        ("process.cwd", None, "process.cwd: missing"),
        ("ociVersion", None, "ociVersion: missing"),
        ("mounts", [{"destination": "/a"}, {"type": "proc"}], "mounts[1].destination: missing"),
        ("mounts", {}, "mounts: expected array, got object"),
        ("linux.namespaces", [{"type": "nett"}], 'linux.namespaces[0].type: unknown value "nett"; allowed: cgroup, '),
        ("linux.timeOffsets", {"wall": {}}, 'linux.timeOffsets.wall: unknown key "wall"; allowed: boottime, monotonic'),
        ("linux.sysctl", {"net.x\n": 1}, 'linux.sysctl["net.x\\n"]: expected string, got integer'),
        ("linux.rootfsPropagation", "often", 'linux.rootfsPropagation: unknown value "often"; allowed: private,'),
        ("process.rlimits", [{"type": "RLIMIT_X", "soft": 1, "hard": 1}], 'process.rlimits[0].type: unknown value'),
        ("process.capabilities", [], "process.capabilities: expected object, got array"),
        ("linux.resources.devices", [{"allow": True, "type": "p"}], "linux.resources.devices[0].type: unknown value"),
    ],
)  # fmt: skip
def test_error_lines(path: str, value: Any, line: str) -> None:
    document = json.loads(json.dumps(WHOLE))
    *parents, key = path.split(".")
    here = document
    for parent in parents:
        here = here[parent]
    here[key] = value
    with pytest.raises(InvalidInput) as caught:
        spec.decode(document)
    assert str(caught.value).startswith(line)


@pytest.mark.parametrize("data", [None, [], "text", 5])
def test_not_an_object(data: Any) -> None:
    with pytest.raises(InvalidInput, match="expected object, got"):
        spec.decode(data)


def test_part_and_place() -> None:
    assert spec.decode_as(spec.Process, {"cwd": "/", "args": ["ls"]}).args == ("ls",)
    with pytest.raises(InvalidInput, match=r"^process\.cwd: missing$"):
        spec.decode_as(spec.Process, {}, "process")


def test_null_is_absent_and_unknown_is_listed() -> None:
    document = {
        "ociVersion": "1.0.2",
        "process": {"cwd": "/", "args": None, "commandLine": "x", "user": {"sid": 1}},
        "windows": {"x": {}},
        "mounts": [{"destination": "/a", "odd": []}],
        "linux": {"timeOffsets": {"monotonic": {"hours": 1}}},
    }
    assert spec.decode(document).process == spec.Process()
    assert spec.unknown_fields(document) == (
        "process.commandLine",
        "process.user.sid",
        "windows",
        "mounts[0].odd",
        "linux.timeOffsets.monotonic.hours",
    )


def test_pleasant_in_python() -> None:
    assert spec.encode(spec.Spec(process=spec.Process(args=("true",)))) == {
        "ociVersion": "1.3.0",
        "process": {"args": ["true"], "cwd": "/"},
    }


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            b'{\n  "a": 1,\n      oops}',
            "config.json: line 3 column 7: expecting property name enclosed in double quotes",
        ),
        (b'{"ociVersion": "1.0.0", ', "config.json: line 1 column 25: expecting property name"),
        (b"", "config.json: line 1 column 1: expecting value"),
        (b'{\n"hostname": "\xff"}', "config.json: line 2: byte 15 is not UTF-8"),
        (b"[" * 100000, "config.json: nested too deeply"),
        (b'{"a": ' + b"9" * 5000 + b"}", "config.json: "),
        (b'{"ociVersion": 1}', "ociVersion: expected string, got integer"),
    ],
)
def test_load_names_the_place(tmp_path: Any, text: bytes, line: str) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text)
    with pytest.raises(InvalidInput) as caught:
        spec.load(str(path))
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_load(tmp_path: Any) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps(WHOLE))
    assert spec.load(str(path)) == spec.decode(WHOLE)
    with pytest.raises(NotFound, match="no such file"):
        spec.load(str(tmp_path / "absent.json"))
    with pytest.raises(InvalidInput, match="Is a directory"):
        spec.load(str(tmp_path))
    with pytest.raises(InvalidInput, match="larger than 64 MiB"):
        spec.load("/dev/zero")


def test_import_is_cheap() -> None:
    code = "import sys; from corten.runtime import defaults, spec; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, check=True)
    bare = subprocess.run([sys.executable, "-I", "-c", "import sys; print(*sys.modules)"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    new = set(done.stdout.split()) - set(bare.stdout.split())
    assert not new & {"json", "re", "typing", "dataclasses", "enum", "contextlib", "functools", "collections", "pwd"}


# --- the defaults


def test_default_spec_is_valid_and_complete() -> None:
    one = defaults.default_spec(("true",))
    spec.validate(one)
    assert spec.decode(spec.encode(one)) == one
    assert one.process is not None
    assert one.process.no_new_privileges
    assert one.linux is not None
    assert {space.type for space in one.linux.namespaces} == set(values.NAMESPACES) - {"user"}
    assert one.linux.seccomp is None


def test_default_spec_in_a_user_namespace() -> None:
    ids = (spec.IdMapping(0, 1000, 1),)
    one = defaults.default_spec(("true",), ids, ids)
    spec.validate(one)
    assert one.linux is not None
    assert {space.type for space in one.linux.namespaces} == set(values.NAMESPACES)
    assert not any("gid=5" in mount.options for mount in one.mounts)
    assert defaults.mounts((spec.IdMapping(0, 0, 6),)) == defaults.MOUNTS


def test_thermal_paths(tmp_path: Any) -> None:
    assert defaults.thermal_paths(str(tmp_path)) == ()
    for name in ("cpu0", "cpu10", "cpu2"):
        (tmp_path / name / "thermal_throttle").mkdir(parents=True)
    (tmp_path / "cpufreq").mkdir()
    assert defaults.thermal_paths(str(tmp_path)) == tuple(f"{tmp_path}/cpu{n}/thermal_throttle" for n in (0, 2, 10))
