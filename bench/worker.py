"""Makes a container through the library for each line on stdin, and prints the milliseconds that took.

worker.py ROOTFS HEAP_MIB THREADS: the process first touches so much memory and starts so many threads.
A line is `rootfs` (overlay over ROOTFS) or `host` (the image).
"""

from __future__ import annotations

import sys
import threading
import time

import corten

PAGE = 4096


def main() -> None:
    rootfs, heap_mib, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    heap = bytearray(heap_mib << 20)
    heap[::PAGE] = b"\1" * len(heap[::PAGE])  # each page is really there
    for _ in range(threads):
        threading.Thread(target=threading.Event().wait, daemon=True).start()
    for line in sys.stdin:
        start = time.perf_counter()
        if line.strip() == "host":
            result = corten.run("host", ["true"], memory="512m", cpus=1, pids=64)
        else:
            result = corten.run(
                rootfs=rootfs, argv=["/bin/true"], writable="throwaway", memory="512m", cpus=1, pids=64
            )
        took = (time.perf_counter() - start) * 1e3
        if result.exit_code:
            raise SystemExit(result.reason)
        print(f"{took:.3f}", flush=True)


if __name__ == "__main__":
    main()
