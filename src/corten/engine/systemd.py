"""A container's control group as a transient scope of systemd, asked for over D-Bus.

Rule 1: systemd takes a process that exists, so the scope is made after the clone; the child waits meanwhile.
Rule 2: a connection lives for one conversation; a request is answered, or is an error that says what was asked.
Rule 3: systemd decides where the group lies; it is asked, and what it says must be where the group was planned.
"""

from __future__ import annotations

import os

from corten.engine.systemd_properties import Scope, slice_path
from corten.errors import Error, Unsupported

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from jeepney import DBusAddress
    from jeepney.io.blocking import DBusConnection

    from corten.engine.systemd_properties import Property

_PATIENCE = 30.0  # seconds for systemd to answer or to finish a job: what runc gives it
_NAME = "org.freedesktop.systemd1"
_GONE = (f"{_NAME}.NoSuchUnit", f"{_NAME}.NotLoaded")


class SystemdError(Error):
    """systemd refused. name: of the D-Bus error."""

    def __init__(self, what: str, name: str, text: str) -> None:
        self.name = name
        super().__init__(f"{what}: systemd: {text}")


class Manager:
    """A conversation with systemd, of the machine or of the user. `Unsupported`: there is none to talk with."""

    def __init__(self, user: bool) -> None:
        try:
            from jeepney import DBusAddress
            from jeepney.io.blocking import open_dbus_connection
        except ImportError:
            what = "--systemd-cgroup: the Python package jeepney is not installed: pip install jeepney"
            raise Unsupported(what) from None
        bus = _user_bus() if user else os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "SYSTEM"
        try:
            self._bus: DBusConnection = open_dbus_connection(bus)
        except (OSError, KeyError, RuntimeError) as error:
            raise Unsupported(
                f"--systemd-cgroup: no D-Bus of {'the user' if user else 'the system'}: {error}: where systemd does "
                "not run, use cgroupfs"
            ) from None
        self._manager: DBusAddress = DBusAddress("/org/freedesktop/systemd1", _NAME, f"{_NAME}.Manager")
        try:
            self.tree: str = self._property(self._manager, "ControlGroup").rstrip("/")
        except Error as error:
            self._bus.close()
            raise Unsupported(f"--systemd-cgroup: {error}: where systemd does not run, use cgroupfs") from None

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self._bus.close()

    def path(self, scope: Scope) -> str:
        """Where the scope's group will lie, from the root of each hierarchy."""
        return f"{self.tree}{slice_path(scope.slice)}/{scope.unit}"

    def start(self, scope: Scope, properties: list[Property]) -> None:
        """Make the scope with its processes. `Error` if systemd does not, or puts it elsewhere."""
        what = f"make the unit {scope.unit}"
        try:
            self._job(what, "StartTransientUnit", "ssa(sv)a(sa(sv))", scope.unit, "replace", properties, [])
        except SystemdError as error:
            if error.name != f"{_NAME}.UnitExists":
                raise
            # One that failed is kept by systemd until somebody has looked.
            self._call(self._manager, "ResetFailedUnit", "s", scope.unit)
            self._job(what, "StartTransientUnit", "ssa(sv)a(sa(sv))", scope.unit, "replace", properties, [])
        (unit,) = self._call(self._manager, "GetUnit", "s", scope.unit)
        address = self._manager.with_interface(f"{_NAME}.Scope")
        found = self._property(type(address)(unit, _NAME, f"{_NAME}.Scope"), "ControlGroup")
        if found != self.path(scope):
            raise Error(f"{what}: systemd put it at {found}, not at {self.path(scope)}")

    def change(self, scope: Scope, properties: list[Property]) -> None:
        """Set properties of a scope until the next boot. `Error`."""
        self._call(self._manager, "SetUnitProperties", "sba(sv)", scope.unit, True, properties)

    def stop(self, scope: Scope) -> None:
        """End the scope, if it is still there."""
        try:
            self._job(f"stop the unit {scope.unit}", "StopUnit", "ss", scope.unit, "replace")
        except SystemdError as error:
            if error.name not in _GONE:
                raise
        try:
            self._call(self._manager, "ResetFailedUnit", "s", scope.unit)
        except SystemdError:
            pass  # it did not fail, and so is gone

    # --- the bus

    def _job(self, what: str, method: str, signature: str, *body: Any) -> None:
        """A call that gives a job, and the end of that job."""
        from jeepney import MatchRule, message_bus

        address = self._manager
        rule = MatchRule(
            type="signal", interface=address.interface, member="JobRemoved", path=address.object_path
        )
        self._answer("watch systemd's jobs", message_bus.AddMatch(rule))
        self._call(self._manager, "Subscribe", "")
        with self._bus.filter(rule, bufsize=10_000) as ended:
            (job,) = self._call(self._manager, method, signature, *body)
            for _, path, _, result in self._signals(what, ended):
                if path == job:
                    if result != "done":
                        raise Error(f"{what}: systemd: the job ended as {result!r}: see `systemctl status`")
                    return

    def _signals(self, what: str, ended: Any) -> Iterator[Any]:
        import time

        until = time.monotonic() + _PATIENCE
        while True:
            try:
                yield self._bus.recv_until_filtered(ended, timeout=max(0.0, until - time.monotonic())).body
            except TimeoutError:
                raise Error(f"{what}: systemd did not finish within {_PATIENCE:g} s") from None

    def _property(self, address: DBusAddress, name: str) -> Any:
        ((_, value),) = self._call(
            address.with_interface("org.freedesktop.DBus.Properties"), "Get", "ss", address.interface, name
        )
        return value

    def _call(self, address: DBusAddress, method: str, signature: str, *body: Any) -> tuple[Any, ...]:
        from jeepney import new_method_call

        return self._answer(method, new_method_call(address, method, signature, body))

    def _answer(self, what: str, message: Any) -> tuple[Any, ...]:
        from jeepney import HeaderFields, MessageType

        try:
            reply = self._bus.send_and_get_reply(message, timeout=_PATIENCE)
        except TimeoutError:
            raise Error(f"{what}: systemd did not answer within {_PATIENCE:g} s") from None
        except OSError as error:
            raise Error(f"{what}: the connection to systemd broke: {error.strerror}") from None
        if reply.header.message_type is MessageType.error:
            text = str(reply.body[0]) if reply.body else ""
            raise SystemdError(what, reply.header.fields.get(HeaderFields.error_name, ""), text)
        body: tuple[Any, ...] = reply.body
        return body


def _user_bus() -> str:
    given = os.environ.get("DBUS_SESSION_BUS_ADDRESS")
    if given:
        return given
    base = os.environ.get("XDG_RUNTIME_DIR")
    if not base:
        raise Unsupported("--systemd-cgroup: XDG_RUNTIME_DIR is not set: it says where the user's D-Bus is")
    return f"unix:path={base}/bus"
