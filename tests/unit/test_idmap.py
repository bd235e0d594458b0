"""Id maps as data: text, overlap, lookups, and the maps of an ordinary user."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidInput, Unsupported
from corten.linux import idmap
from corten.linux.idmap import IdMapping

# disjoint on both sides by construction: gaps and sizes laid one after the other
_steps = st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50), st.integers(1, 50)), min_size=1, max_size=12)


@st.composite
def valid_maps(draw: st.DrawFn) -> tuple[IdMapping, ...]:
    maps, inside, outside = [], 0, 0
    for gap_inside, gap_outside, size in draw(_steps):
        inside, outside = inside + gap_inside, outside + gap_outside
        maps.append(IdMapping(inside, outside, size))
        inside, outside = inside + size, outside + size
    return tuple(draw(st.permutations(maps)))


@given(valid_maps())
def test_text_round_trip_and_check(maps: tuple[IdMapping, ...]) -> None:
    idmap.check(maps)
    assert idmap.parse(idmap.render(maps)) == maps


@given(valid_maps())
def test_every_mapped_id_goes_out_and_back(maps: tuple[IdMapping, ...]) -> None:
    for mapping in maps:
        for inside in (mapping.container_id, mapping.container_id + mapping.size - 1):
            outside = idmap.to_host(inside, maps)
            assert outside is not None
            assert idmap.to_container(outside, maps) == inside


@given(valid_maps(), st.data())
def test_any_overlap_is_found(maps: tuple[IdMapping, ...], data: st.DataObject) -> None:
    victim = data.draw(st.sampled_from(maps))
    inside = data.draw(st.integers(victim.container_id, victim.container_id + victim.size - 1))
    with pytest.raises(InvalidInput, match="overlap inside"):
        idmap.check((*maps, IdMapping(inside, 1_000_000, 1)))
    with pytest.raises(InvalidInput, match="overlap outside"):
        idmap.check((*maps, IdMapping(1_000_000, victim.host_id, 1)))


def test_overlap_names_both_ranges() -> None:
    with pytest.raises(InvalidInput) as caught:
        idmap.check((IdMapping(0, 1000, 10), IdMapping(9, 5000, 5)), "linux.uidMappings")
    assert str(caught.value) == (
        "linux.uidMappings[0] and linux.uidMappings[1] overlap inside: 0-9 -> 1000-1009 and 9-13 -> 5000-5004"
    )


@pytest.mark.parametrize(
    ("mapping", "words"),
    [
        (IdMapping(0, 0, 0), "at least one id"),
        (IdMapping(0, 0xFFFF_FFFF, 1), "hostID"),
        (IdMapping(-1, 0, 1), "containerID"),
        (IdMapping(0xFFFF_FF00, 0, 0x100), "containerID"),
    ],
)
def test_impossible_ranges(mapping: IdMapping, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        idmap.check((mapping,))


def test_whole_range_is_allowed() -> None:
    idmap.check((IdMapping(0, 0, 0xFFFF_FFFF),))


def test_too_many_ranges() -> None:
    with pytest.raises(InvalidInput, match="341 ranges"):
        idmap.check(tuple(IdMapping(n * 2, n * 2, 1) for n in range(341)))
    with pytest.raises(InvalidInput, match="one page"):
        idmap.check(tuple(IdMapping(3_000_000_000 + n, 3_000_000_000 + n, 1) for n in range(300)))


@pytest.mark.parametrize("text", ["0 1", "a b c", "0 1 -1", "0 1 2 3"])
def test_malformed_text(text: str) -> None:
    with pytest.raises(InvalidInput, match="line 1"):
        idmap.parse(text)


def test_subordinate_text() -> None:
    text = "alice:100000:65536\n# bob\n1000:100000:65536\nbob:300000:65536\nalice:x:1\nalice:5\nalice:200000:10\n"
    assert idmap.parse_subordinate(text, ("alice", "1000")) == ((100000, 65536), (200000, 10))
    assert idmap.parse_subordinate(text, ("bob",)) == ((300000, 65536),)
    assert idmap.parse_subordinate("alice:10:10\nalice:15:10\n", ("alice",)) == ((10, 10), (20, 5))


def test_subordinate_reads_by_name_and_uid(tmp_path: object) -> None:
    uids, gids = f"{tmp_path}/uid", f"{tmp_path}/gid"
    with open(uids, "w") as file:
        file.write("root:100000:5\n0:200000:5\nroot2:1:1\n")
    with open(gids, "w") as file:
        file.write("987654:7:7\n")
    expected = ((100000, 5), (200000, 5))
    assert idmap.subordinate("root", uids, gids) == idmap.Subordinate(expected, ())
    assert idmap.subordinate(0, uids, gids).uids == expected
    assert idmap.subordinate(987654, uids, gids).gids == ((7, 7),)
    assert idmap.subordinate("nosuchuser", uids, f"{tmp_path}/absent") == idmap.Subordinate()


@given(
    st.integers(0, 200),
    st.lists(st.integers(1, 60), max_size=4),
)
def test_around_fills_every_id_once(inside: int, counts: list[int]) -> None:
    ranges, start = [], 1000
    for count in counts:
        ranges.append((start, count))
        start += count + 3
    maps = idmap.around(500, inside, ranges)
    idmap.check(maps)
    assert idmap.to_host(inside, maps) == 500
    mapped = [m.container_id + n for m in maps for n in range(m.size)]
    total = sum(counts)
    expected = [n for n in range(total + 1) if n != inside][:total]
    assert mapped == sorted([*expected, inside])
    assert {idmap.to_host(n, maps) for n in expected} == {first + n for first, count in ranges for n in range(count)}


def test_root_and_keep_id() -> None:
    assert idmap.around(1000, 0, [(100000, 65536)]) == (IdMapping(0, 1000, 1), IdMapping(1, 100000, 65536))
    assert idmap.around(1000, 1000, [(100000, 65536)]) == (
        IdMapping(0, 100000, 1000),
        IdMapping(1000, 1000, 1),
        IdMapping(1001, 101000, 64536),
    )


def test_no_ranges_say_what_to_do() -> None:
    uid = 987654  # in no file
    assert "987654 has no range in /etc/subuid" in idmap.subordinate_problem(uid)
    assert "usermod --add-subuids" in idmap.subordinate_problem(uid)
    assert idmap.rootless_maps(uid, 5, 7, 8) == (idmap.single(7, uid), idmap.single(8, 5))


def test_absent_helper_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unsupported, match=r"newnosuchmap is not installed: install the package uidmap"):
        idmap._run_helper("newnosuchmap", 1, idmap.single(0, 0), "/etc/subuid")
