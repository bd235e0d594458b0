"""The yardstick of a call: for each line on stdin, fork into new namespaces with numpy loaded, add up, exit, wait.

No root file system, no groups, no limits, no filter: the fork itself. Prints milliseconds.
"""

from __future__ import annotations

import gc
import os
import sys
import time

import numpy as np

from corten.linux import clone

KINDS = ("mount", "uts", "ipc", "pid", "network", "cgroup", "time")


def main() -> None:
    gc.collect()
    gc.freeze()
    flags = clone.flags_of(KINDS)
    for _ in sys.stdin:
        start = time.perf_counter()
        made = clone.clone3(flags)
        if made.pid == 0:
            os._exit(int(float(np.sum([1.0, 2.0])) != 3.0))
        _, status = os.waitpid(made.pid, 0)
        took = (time.perf_counter() - start) * 1e3
        os.close(made.pidfd)
        assert status == 0
        print(f"{took:.3f}", flush=True)


if __name__ == "__main__":
    main()
