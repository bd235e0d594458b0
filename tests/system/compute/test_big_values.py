"""Big arguments and results: in memory that is shared, that nobody can change, and that counts against its writer."""

from __future__ import annotations

import os
import pickle
import socket
import struct

import numpy as np
import pytest

import corten
from corten.compute import memory_files
from corten.compute.inside import files, wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

MIB = 1 << 20


@pytest.fixture(params=["huge pages", "memfd"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both kinds of files, the second as on a kernel that refuses the first."""
    if request.param == "memfd":
        monkeypatch.setattr(memory_files, "_OPTIONS", ("no-such-option",))
    else:
        monkeypatch.setattr(memory_files, "host_takes_back", lambda: False)
    return str(request.param)


def _kind(array: np.ndarray) -> str:
    """Which kind of file an array lies in."""
    found = files.origin(memoryview(array))  # type: ignore[arg-type]
    assert found is not None, "it was copied"
    return "memfd" if files.is_sealed(found[0]) else "huge pages" if files.is_held(found[0]) else "nowhere"


@corten.function(memory="200m", reuse=True)
def look(array: np.ndarray, double: bool = False) -> tuple[Any, ...]:
    return int(array.sum()), array.flags.writeable, array.flags.owndata, array * 2 if double else array


def test_arrays_there_and_back(either: str) -> None:
    array = np.arange(20 * MIB, dtype=np.int64)[5:]  # 160 MiB: counted here, and not in the container
    total, writeable, own, again = look.remote(array)
    assert (total, writeable, own) == (array.sum(), False, False)
    assert np.array_equal(again, array)
    assert _kind(again) == either, "what is returned as it came is not copied"
    assert not again.flags.writeable
    doubled = look.remote(array[: 8 * MIB], double=True)[3]
    assert np.array_equal(doubled, array[: 8 * MIB] * 2)
    assert _kind(doubled) == either
    # A result that is passed on, of which nobody holds anything any more when its call begins.
    calls = [look.spawn(look.remote(doubled[:MIB], double=True)[3]) for _ in range(3)]
    expected = int(doubled[:MIB].sum()) * 2
    assert [call.get()[0] for call in calls] == [expected] * 3


def test_bytes_without_a_copy() -> None:
    @corten.function(memory="64m", reuse=True)
    def part(buffer: memoryview) -> dict[str, Any]:
        return {"whole": buffer, "part": buffer[5:8], "made": pickle.PickleBuffer(b"y" * (20 << 20))}

    data = os.urandom(50 << 20)
    found = part.remote(pickle.PickleBuffer(data))
    assert found["whole"] == data
    assert found["part"] == data[5:8]
    assert bytes(found["made"]) == b"y" * (20 << 20)


def test_a_generator_of_arrays(either: str) -> None:
    @corten.function(memory="200m")
    def some() -> Iterator[np.ndarray]:
        for number in range(5):
            yield np.full(MIB, number)

    found = list(some.remote())
    assert [(int(array[0]), int(array[-1]), len(array)) for array in found] == [(n, n, MIB) for n in range(5)]
    assert {_kind(array) for array in found} == {either}


def test_an_array_that_a_container_kept_from_an_earlier_call() -> None:
    @corten.function(memory="200m", reuse=True)
    def keep(array: np.ndarray | None) -> np.ndarray:
        import builtins

        if array is not None:
            builtins.kept = array  # type: ignore[attr-defined]
            return array[:1]
        return builtins.kept  # type: ignore[attr-defined, no-any-return]

    with corten.Pool(keep, max=1) as pool:
        pool.remote(np.arange(MIB))
        for _ in range(3):
            assert np.array_equal(pool.remote(None), np.arange(MIB))


def test_a_file_is_used_again_only_when_nobody_has_it_any_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    make = memory_files.HugeFile.__init__

    def watch(own: memory_files.HugeFile, *keep: Any) -> None:
        made.append(own)
        make(own, *keep)

    monkeypatch.setattr(memory_files.HugeFile, "__init__", watch)
    monkeypatch.setattr(memory_files, "host_takes_back", lambda: True)  # so that results are no part of it

    with corten.Pool(look, max=1) as pool:
        for number in range(5):
            array = np.full(MIB - number, number)
            assert pool.remote(array)[0] == array.sum()
        # The first was still mapped by its result here, or by the container, when the second was wanted.
        assert 1 <= len(made) <= 2
        kept = [pool.remote(np.full(MIB, number))[3] for number in range(5)]
        assert [int(array[-1]) for array in kept] == list(range(5)), "what somebody holds stays as it is"
        assert len(made) >= 5
    # Fresh containers have secrets before each other: nothing is used again.
    made.clear()
    monkeypatch.setattr(memory_files, "host_takes_back", lambda: False)
    fresh = look.with_options(reuse=False)
    for number in range(3):
        fresh.remote(np.full(MIB, number))
    assert len(made) == 3


def test_what_was_returned_counts_against_its_container(either: str) -> None:
    @corten.function(memory="100m")
    def large() -> Any:
        return np.ones(5 * MIB), np.zeros(6 * MIB) + 1

    with pytest.raises(corten.OutOfMemory, match="limit 100 MiB"):
        large.remote()


def test_a_container_cannot_change_what_it_was_given() -> None:
    @corten.function(memory="100m", reuse=True)
    def attack(array: np.ndarray) -> list[str]:
        import ctypes
        import mmap

        changes = (
            lambda fd: os.open(f"/proc/self/fd/{fd}", os.O_RDWR),
            lambda fd: os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_TRUNC),
            lambda fd: mmap.mmap(fd, 4096, mmap.MAP_SHARED, mmap.PROT_WRITE | mmap.PROT_READ),
            lambda fd: os.pwrite(fd, b"x", 0),
            lambda fd: os.ftruncate(fd, 0),
            lambda fd: os.fchmod(fd, 0o777),
        )
        said = []
        for fd in map(int, os.listdir("/proc/self/fd")):
            for change in changes:
                try:
                    if os.fstat(fd).st_size >= array.nbytes:
                        change(fd)
                        said.append("changed")
                except OSError as error:
                    said.append(os.strerror(error.errno or 0))
        page = array.ctypes.data // 4096 * 4096
        libc = ctypes.CDLL(None, use_errno=True)
        said.append("writeable" if libc.mprotect(ctypes.c_void_p(page), 4096, 3) == 0 else "no mprotect")
        return said

    array = np.arange(MIB)
    refusals = {"Read-only file system", "Permission denied", "Bad file descriptor", "Invalid argument", "no mprotect"}
    assert set(attack.remote(array)) == refusals


def _keep_writing(how: str) -> Any:
    """In a container: answer with a file that was granted, but keep a way to change it."""
    import inspect
    import mmap

    from corten.compute.inside import grants

    (sock,) = (
        socket.socket(fileno=os.dup(int(name)))
        for name in os.listdir("/proc/self/fd")
        if os.path.exists(f"/proc/self/fd/{name}") and os.readlink(f"/proc/self/fd/{name}").startswith("socket:")
    )
    store = next(info.frame.f_locals["store"] for info in inspect.stack() if "store" in info.frame.f_locals)
    payload = pickle.dumps("as it was")
    wire.send(sock, b"W", store.call, grants.SIZE.pack(8 << 20))
    _, (fd,) = wire.receive_with(sock)
    os.write(fd, payload + b"\0" * 8192)
    kept: Any = None
    if how == "open":
        kept = os.dup(fd)
    elif how == "mapped":
        kept = mmap.mmap(fd, 4096)
    elif how == "sent":
        one, other = socket.socketpair()
        socket.send_fds(one, [b"x"], [fd])
        kept = one, other
    os.close(fd)
    header = struct.pack("<cBHIQ", b"R", 1, 0, store.call, len(payload))
    sock.send(header)
    if how == "twice":
        sock.send(header)
    sock.recv(1)
    return kept


@pytest.mark.parametrize("how", ["open", "mapped", "sent", "none", "twice"])
def test_a_result_that_could_still_change_is_refused(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory_files, "host_takes_back", lambda: False)
    with corten.Pool(corten.function(_keep_writing), max=1) as pool:
        call = pool.spawn(how)
        if how in ("none", "twice"):
            assert call.get(30) == "as it was"
        else:
            with pytest.raises(corten.Error, match=r"broke the protocol: .*can still change"):
                call.get(30)
