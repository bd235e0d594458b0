"""An ordinary user with a delegated group, without one program more. Run in the virtual machine by
test_cgroup_v2.py."""

from __future__ import annotations

import os
import select

from corten.errors import Unsupported
from corten.linux.cgroup import group, layout, limits, resources
from corten.linux.cgroup.resources import Device, Memory, Pids, Resources

assert os.geteuid() != 0
here = layout.detect()
(tree,) = here.hierarchies
own = group.place(here, "corten-user", need={"memory", "pids"})
assert own.dirs[0].path == tree.directory(os.path.dirname(tree.own)) + "/corten-user", own
own.create()
for write in resources.writes(Resources(memory=Memory(limit=50 << 20, swap=50 << 20), pids=Pids(9)), own):
    own.apply(write)
assert limits.effective(own, "memory") == 50 << 20
ready, tell = os.pipe()
pid = os.fork()
if pid == 0:
    own.join()
    os.write(tell, b"1")
    while True:
        select.select([], [], [], 60)
assert os.read(ready, 1) == b"1"
assert own.procs() == (pid,)
own.freeze()
own.thaw()
own.kill()
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -9
try:
    own.apply_devices(Resources(devices=(Device(False),)))
except Unsupported as error:
    assert "run as root" in str(error), error
else:
    raise AssertionError("an ordinary user has loaded a device program")
own.remove()
assert not os.path.exists(own.dirs[0].path)

# outside what was delegated
try:
    group.place(here, "x", parent="/system.slice", need={"memory"})
except Unsupported as error:
    assert "systemd-run --user" in str(error), error
else:
    raise AssertionError("a group was placed where the user may not write")
print("good")
