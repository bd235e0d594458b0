"""Device rules: the v1 list and the v2 program decide alike, and as the rules say."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidInput, Unsupported
from corten.linux.cgroup.devices import Rule, exceptions, line, program, rules
from corten.linux.cgroup.resources import Device

DENY_ALL = Device(False, None, None, None, "rwm")


def decide(wanted: tuple[Rule, ...], kind: str, major: int, minor: int, access: int) -> bool:
    """The rules in words: bit by bit, the last rule that speaks of it decides."""
    this = Rule(True, kind, major, minor, access)
    for bit in (1, 2, 4):
        if access & bit:
            speaking = [rule.allow for rule in wanted if rule.covers(this) and rule.access & bit]
            if speaking and not speaking[-1]:
                return False
    return True


def execute(code: bytes, kind: str, major: int, minor: int, access: int) -> bool:
    """Run the program as the kernel would (only the operations that it uses)."""
    context = struct.pack("=III", access << 16 | {"b": 1, "c": 2}[kind], major, minor)
    registers = {1: 0}
    at = 0
    while True:
        op, both, offset, value = struct.unpack_from("=BBhi", code, at * 8)
        to, source = both & 15, both >> 4
        at += 1
        if op == 0x61:
            assert source == 1
            registers[to] = struct.unpack_from("=I", context, offset)[0]
        elif op == 0xBF:
            registers[to] = registers[source]
        elif op == 0xB7:
            registers[to] = value
        elif op == 0x57:
            registers[to] &= value
        elif op == 0x77:
            registers[to] >>= value
        elif op == 0x05 or (op == 0x55 and registers[to] != value) or (op == 0x45 and registers[to] & value):
            assert offset >= 0
            at += offset
        elif op == 0x95:
            return bool(registers[0])
        else:
            assert op in (0x55, 0x45)


numbers = st.none() | st.integers(0, 2)
access_letters = st.sets(st.sampled_from("rwm"), min_size=1).map("".join)
devices = st.builds(Device, st.booleans(), st.sampled_from([None, "a", "b", "c"]), numbers, numbers, access_letters)


@given(st.lists(devices, max_size=6).map(tuple))
def test_the_program_decides_as_the_rules_say(listed: tuple[Device, ...]) -> None:
    wanted = rules(listed)
    code = program(wanted)
    for kind in "bc":
        for major in range(3):
            for minor in range(3):
                for access in range(1, 8):
                    expected = decide(wanted, kind, major, minor, access)
                    assert execute(code, kind, major, minor, access) is expected


@given(st.lists(devices, max_size=6).map(tuple))
def test_the_v1_list_decides_as_the_rules_say(listed: tuple[Device, ...]) -> None:
    wanted = rules(listed)
    try:
        default, others = exceptions(wanted)
    except Unsupported as error:
        assert "cgroup v1 cannot hold" in str(error)
        return
    for kind in "bc":
        for major in range(3):
            for minor in range(3):
                for bit in (1, 2, 4):
                    this = Rule(True, kind, major, minor, bit)
                    excepted = any(rule.covers(this) and rule.access & bit for rule in others)
                    assert (default != excepted) is decide(wanted, kind, major, minor, bit)


def test_rules_before_the_last_total_one_do_not_matter() -> None:
    null = Device(True, "c", 1, 3, "rw")
    assert rules((null, DENY_ALL, null)) == (Rule(False, None, None, None, 7), Rule(True, "c", 1, 3, 6))


def test_lines() -> None:
    assert line(Rule(True, "c", 1, 3, 7)) == "c 1:3 rwm"
    assert line(Rule(True, "b", None, None, 1)) == "b *:* m"
    assert line(Rule(True, "c", 136, None, 6)) == "c 136:* rw"


def test_minus_one_and_u() -> None:
    assert rules((Device(True, "u", -1, 5),)) == (Rule(True, "c", None, 5, 7),)


def test_an_exception_inside_an_exception_is_more_than_v1_holds() -> None:
    wanted = rules((DENY_ALL, Device(True, "c", 1, None, "rw"), Device(False, "c", 1, 8, "r")))
    with pytest.raises(Unsupported, match=r"`c 1:8 r` inside `c 1:\* rw`"):
        exceptions(wanted)


@pytest.mark.parametrize(
    "device", [Device(True, "x"), Device(True, "c", 1, 3, "rx"), Device(True, "c", 1, 3, ""), Device(True, "c", -2)]
)
def test_not_a_rule(device: Device) -> None:
    with pytest.raises(InvalidInput, match=r"linux\.resources\.devices"):
        rules((device,))
