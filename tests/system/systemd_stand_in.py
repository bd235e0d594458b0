"""What systemd does for a container runtime, and no more, on a real bus: `python systemd_stand_in.py RECORD`.

It keeps transient scopes as systemd does: a control group in the tree of its own (v1 `name=systemd`, and v2), the
processes moved into it, jobs that end with a signal. Each call is written to RECORD, a JSON array a line.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jeepney import DBusAddress, HeaderFields, MessageType, message_bus, new_error, new_method_return, new_signal
from jeepney.io.blocking import DBusConnection, open_dbus_connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from jeepney import Message

NAME = "org.freedesktop.systemd1"
MANAGER = DBusAddress("/org/freedesktop/systemd1", NAME, f"{NAME}.Manager")
# The types that systemd takes; it refuses others.
TYPES = {
    "Description": "s", "Slice": "s", "PIDs": "au", "Delegate": "b", "DefaultDependencies": "b", "MemoryMax": "t",
    "MemoryLow": "t", "MemorySwapMax": "t", "MemoryLimit": "t", "CPUWeight": "t", "CPUShares": "t", "TasksMax": "t",
    "CPUQuotaPerSecUSec": "t", "CPUQuotaPeriodUSec": "t", "AllowedCPUs": "ay", "AllowedMemoryNodes": "ay",
    "IOWeight": "t", "BlockIOWeight": "t", "DevicePolicy": "s", "DeviceAllow": "a(ss)", "CPUAccounting": "b",
    "MemoryAccounting": "b", "IOAccounting": "b", "BlockIOAccounting": "b", "TasksAccounting": "b",
    "TimeoutStopUSec": "t", "CollectMode": "s", "After": "as",
}  # fmt: skip


class Refused(Exception):
    """A D-Bus error: name, text."""


def trees() -> list[Path]:
    """The roots of the hierarchies that systemd itself keeps."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        if right.startswith("cgroup2 ") or "name=systemd" in right:
            found.append(Path(left.split()[4]))
    return found


def slice_path(name: str) -> str:
    parts = name.removesuffix(".slice").split("-")
    return "/".join("-".join(parts[: end + 1]) + ".slice" for end in range(len(parts)))


class Systemd:
    def __init__(self, bus: DBusConnection, record: Path) -> None:
        self.bus, self.record = bus, record
        self.units: dict[str, str] = {}  # name: path of its group
        self.jobs = 0

    def serve(self) -> None:
        while True:
            message = self.bus.receive()
            if message.header.message_type is not MessageType.method_call:
                continue
            try:
                signature, body, ended = self.call(message)
                reply = new_method_return(message, signature, body)
            except Refused as error:
                reply, ended = new_error(message, error.args[0], "s", (error.args[1],)), None
            self.bus.send(reply)
            if ended:
                self.bus.send(new_signal(MANAGER, "JobRemoved", "uoss", ended))

    def call(self, message: Message) -> tuple[str | None, tuple[Any, ...], Any]:
        member = message.header.fields[HeaderFields.member]
        body = message.body
        if member != "Get":
            with self.record.open("a") as file:
                file.write(json.dumps([member, *body], default=list) + "\n")
        if member == "Subscribe":
            return None, (), None
        if member == "StartTransientUnit":
            return self.job(body[0], self.start(body[0], body[2]))
        if member == "GetUnit":
            return "o", (f"/unit/{self.known(body[0]).encode().hex()}",), None
        if member == "Get":
            path = message.header.fields[HeaderFields.path]
            return "v", (("s", bytes.fromhex(path[6:]).decode() if path.startswith("/unit/") else "/"),), None
        if member == "SetUnitProperties":
            self.known(body[0])
            check(body[2])
            return None, (), None
        if member == "StopUnit":
            return self.job(body[0], self.stop(body[0]))
        if member == "ResetFailedUnit":
            raise Refused(f"{NAME}.NoSuchUnit", f"Unit {body[0]} not loaded.")
        raise Refused("org.freedesktop.DBus.Error.UnknownMethod", f"Unknown method {member}")

    def job(self, unit: str, result: str) -> tuple[str, tuple[str], Any]:
        self.jobs += 1
        job = f"/org/freedesktop/systemd1/job/{self.jobs}"
        return "o", (job,), (self.jobs, job, unit, result)

    def known(self, unit: str) -> str:
        path = self.units.get(unit)
        # As systemd does with a scope that is empty.
        if path and not any((tree / path[1:] / "cgroup.procs").read_text() for tree in trees()):
            self.forget(unit)
            path = None
        if path is None:
            raise Refused(f"{NAME}.NoSuchUnit", f"Unit {unit} not loaded.")
        return path

    def start(self, unit: str, properties: list[tuple[str, tuple[str, Any]]]) -> str:
        given = check(properties)
        if unit in self.units:
            raise Refused(f"{NAME}.UnitExists", f"Unit {unit} was already loaded or has a fragment file.")
        if not given.get("PIDs"):
            raise Refused("org.freedesktop.DBus.Error.InvalidArgs", "Scope has no PIDs")
        if given.get("Description") and "fails" in unit:
            return "failed"
        path = self.units[unit] = f"/{slice_path(given['Slice'])}/{unit}"
        for tree in trees():
            group = tree / path[1:]
            group.mkdir(parents=True)
            offered = tree / "cgroup.controllers"
            known = offered.read_text().split() if offered.exists() else ()
            usual = {"cpu", "memory", "pids", "io", "cpuset"} & set(known)
            for place in list(group.relative_to(tree).parents)[::-1]:
                for name in usual:
                    (tree / place / "cgroup.subtree_control").write_text(f"+{name}")
            for pid in given["PIDs"]:
                (group / "cgroup.procs").write_text(str(pid))
        return "done"

    def stop(self, unit: str) -> str:
        self.known(unit)
        self.forget(unit)
        return "done"

    def forget(self, unit: str) -> None:
        path = self.units.pop(unit)
        for tree in trees():
            try:
                (tree / path[1:]).rmdir()
            except OSError:
                continue


def check(properties: list[tuple[str, tuple[str, Any]]]) -> dict[str, Any]:
    for name, (signature, _) in properties:
        if TYPES.get(name) != signature:
            raise Refused("org.freedesktop.DBus.Error.PropertyReadOnly", f"Cannot set property {name} ({signature}).")
    return {name: value for name, (_, value) in properties}


if __name__ == "__main__":
    with open_dbus_connection("SYSTEM") as bus:
        bus.send_and_get_reply(message_bus.RequestName(NAME))
        print("ready", flush=True)
        Systemd(bus, Path(sys.argv[1])).serve()
