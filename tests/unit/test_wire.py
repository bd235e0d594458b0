"""Messages between a caller and a process in a container: what goes in comes out, and what is no message is refused."""

from __future__ import annotations

import os
import pickle
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.compute.inside import wire

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Ends = tuple[socket.socket, socket.socket]


@pytest.fixture
def ends() -> Iterator[Ends]:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        yield one, other


sizes = st.one_of(st.integers(0, 100), st.sampled_from([4095, 4096, wire.OUT_OF_BAND, wire.INLINE, 100_000]))


@given(size=sizes, buffers=st.lists(sizes.map(os.urandom), max_size=5), call=st.integers(0, 2**32 - 1))
def test_what_goes_in_comes_out(size: int, buffers: list[bytes], call: int) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        payload = os.urandom(size)
        wire.send(one, b"R", call, payload, [memoryview(buffer) for buffer in buffers])
        message = wire.receive(other)
        assert message is not None
        assert (message.kind, message.call, bytes(message.payload)) == (b"R", call, payload)
        assert [bytes(buffer) for buffer in message.buffers] == buffers
        assert all(memoryview(buffer).readonly for buffer in message.buffers)
        assert message.size == size + sum(map(len, buffers))


def test_values_with_big_buffers(ends: Ends) -> None:
    value = [pickle.PickleBuffer(b"x" * 200_000), b"small", pickle.PickleBuffer(b"y" * 100_000)]
    payload, buffers = wire.dump(value, pickle.dumps)
    assert len(payload) < 1000
    wire.send(ends[0], b"C", 1, payload, buffers)
    message = wire.receive(ends[1])
    assert message is not None
    loaded = pickle.loads(message.payload, buffers=message.buffers)
    assert (bytes(loaded[0]), loaded[1], bytes(loaded[2])) == (b"x" * 200_000, b"small", b"y" * 100_000)


def test_what_came_in_a_file_goes_back_in_the_same_file(ends: Ends) -> None:
    wire.send(ends[0], b"C", 1, b"p" * 10, [memoryview(os.urandom(1 << 20))])
    message = wire.receive(ends[1])
    assert message is not None
    part = memoryview(message.buffers[0])[5000:900_000]
    parcel = wire.Parcel(b"R", 1, b"q", [part])
    assert len(parcel.files) == 1  # the one that came, besides its own for the payload
    assert parcel._own is not None
    assert os.fstat(parcel._own.fd).st_size < 100
    parcel.send(ends[1])
    parcel.close()
    again = wire.receive(ends[0])
    assert again is not None
    assert again.buffers[0] == part


def test_no_descriptor_is_left(ends: Ends) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        wire.send(ends[0], b"C", 1, b"p" * 100_000, [memoryview(os.urandom(100_000))])
        message = wire.receive(ends[1])
        del message
    assert len(os.listdir("/proc/self/fd")) == before


@given(st.binary(min_size=1, max_size=200))
def test_noise_is_refused_or_is_a_message(noise: bytes) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        one.send(noise)
        try:
            message = wire.receive(other)
        except wire.Malformed:
            return
        assert message is not None
        assert message.size <= len(noise)


@given(st.integers(0, 17), st.integers(0, 2**63), st.integers(0, 2**63), st.integers(0, 3))
def test_lies_about_places_are_refused(at: int, offset: int, size: int, file: int) -> None:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with one, other:
        parcel = wire.Parcel(b"R", 1, b"p", [memoryview(os.urandom(50_000))])
        header, place = wire._HEADER.size, wire._PLACE.size
        lie = wire._PLACE.pack(file, offset, size)
        parcel.data = parcel.data[:header] + lie + parcel.data[header + place :]
        parcel.send(one)
        parcel.close()
        try:
            message = wire.receive(other)
        except wire.Malformed:
            return
        assert message is not None
        assert sum(map(len, message.buffers)) <= 50_000 + 2 * wire._PAGE


def test_a_file_that_could_still_change_is_refused(ends: Ends) -> None:
    fd = os.memfd_create("unsealed", os.MFD_ALLOW_SEALING)
    os.write(fd, b"x" * 5000)
    data = wire._HEADER.pack(b"R", 0, 0, 1, 5000)
    socket.send_fds(ends[0], [data], [fd])
    os.close(fd)
    with pytest.raises(wire.Malformed, match="not sealed"):
        wire.receive(ends[1])
    reading, writing = os.pipe()
    socket.send_fds(ends[0], [data], [reading])
    with pytest.raises(wire.Malformed):
        wire.receive(ends[1])
    os.close(reading)
    os.close(writing)


def test_the_end(ends: Ends) -> None:
    ends[0].close()
    assert wire.receive(ends[1]) is None
