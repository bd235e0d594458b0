"""Names, masks, what people ask for, and which sets contradict each other."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import InvalidInput, Unsupported
from corten.linux import capabilities
from corten.linux.capabilities import ALL, DEFAULT, Sets, available, check, combine, mask, names, number, parse

subsets = st.sets(st.sampled_from(ALL)).map(lambda chosen: tuple(sorted(chosen, key=number)))
sets_of_five = st.builds(Sets, subsets, subsets, subsets, subsets, subsets)


def _prefixed(words: str) -> tuple[str, ...]:
    return tuple(f"CAP_{word}" for word in words.split())


def test_numbers_are_those_of_the_kernel() -> None:
    """linux/capability.h, a sample at both ends of both words."""
    assert len(ALL) == 41
    for name, value in {"CHOWN": 0, "SETPCAP": 8, "NET_RAW": 13, "SYS_ADMIN": 21, "SETFCAP": 31, "MAC_OVERRIDE": 32,
                        "SYSLOG": 34, "AUDIT_READ": 37, "CHECKPOINT_RESTORE": 40}.items():  # fmt: skip
        assert number(f"CAP_{name}") == value


def test_default_is_that_of_podman() -> None:
    assert mask(DEFAULT.bounding) == 0x800405FB  # CapBnd of `podman run` (containers-common)
    held = DEFAULT.bounding
    assert Sets(bounding=held, effective=held, permitted=held) == DEFAULT


@given(st.integers(0, 2**64 - 1))
def test_masks_and_names(bits: int) -> None:
    assert mask(names(bits)) == bits
    assert mask(names(f"{bits:016x}\n")) == bits


def test_newer_capabilities_have_a_name() -> None:
    assert names(1 << 41) == ("CAP_41",)
    for wrong in ("CAP_0", "CAP_40", "CAP_64", "41", "CAP_", "CAP_٤١", "chown"):
        with pytest.raises(InvalidInput):
            number(wrong)


@given(st.sampled_from(ALL), st.booleans(), st.randoms(use_true_random=False))
def test_any_spelling(name: str, prefix: bool, random: object) -> None:
    word = name if prefix else name.removeprefix("CAP_")
    mixed = "".join(letter.lower() if random.random() < 0.5 else letter for letter in word)  # type: ignore[attr-defined]
    assert parse(mixed) == name


def test_all_in_any_case() -> None:
    assert parse("all") == parse(" ALL ") == parse("CAP_ALL") == "ALL"


@pytest.mark.parametrize(
    ("word", "text"),
    [
        ("SYS_PTRAC", "--cap-add: there is no capability 'SYS_PTRAC'; did you mean CAP_SYS_PTRACE?"),
        ("net-admin", "--cap-add: there is no capability 'net-admin'; did you mean CAP_NET_ADMIN?"),
        ("", "--cap-add: there is no capability ''"),
        ("quite_another", "--cap-add: there is no capability 'quite_another'; see capabilities(7) for the names"),
        ("CAP_41", "--cap-add: there is no capability 'CAP_41'"),
    ],
)
def test_unknown_name(word: str, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        combine(DEFAULT.bounding, [word])
    assert str(caught.value).startswith(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("add", "drop", "expected"),
    [
        ([], [], DEFAULT.bounding),
        (["net_admin"], ["CAP_KILL"], names((mask(DEFAULT.bounding) | 1 << 12) & ~(1 << 5))),
        (["CHOWN"], [], DEFAULT.bounding),
        ([], ["NET_ADMIN"], DEFAULT.bounding),
        ([], ["all"], ()),
        (["SETUID", "CHOWN"], ["ALL"], _prefixed("CHOWN SETUID")),
        (["ALL"], [], ALL),
        (["ALL", "CHOWN"], ["SYS_ADMIN", "MKNOD"],
         tuple(name for name in ALL if name not in ("CAP_SYS_ADMIN", "CAP_MKNOD"))),
    ],
)  # fmt: skip
def test_combine(add: list[str], drop: list[str], expected: tuple[str, ...]) -> None:
    assert combine(DEFAULT.bounding, add, drop) == expected


@pytest.mark.parametrize(("add", "drop", "name"), [(["ALL"], ["all"], "ALL"), (["kill"], ["CAP_KILL"], "CAP_KILL")])
def test_added_and_dropped(add: list[str], drop: list[str], name: str) -> None:
    with pytest.raises(InvalidInput, match=f"{name} is both added and dropped"):
        combine(DEFAULT.bounding, add, drop)


@given(subsets, subsets, subsets)
def test_combine_is_set_algebra(default: tuple[str, ...], add: tuple[str, ...], drop: tuple[str, ...]) -> None:
    drop = tuple(set(drop) - set(add))
    assert set(combine(default, add, drop)) == (set(default) - set(drop)) | set(add)


@pytest.mark.parametrize(
    ("sets", "text"),
    [
        (Sets(effective=("CAP_KILL",)), "process.capabilities.effective: CAP_KILL must be in permitted"),
        (Sets(ambient=("CAP_KILL",), permitted=("CAP_KILL",)), "ambient: CAP_KILL must be in inheritable"),
        (Sets(ambient=("CAP_KILL",), inheritable=("CAP_KILL",)), "ambient: CAP_KILL must be in permitted"),
        (Sets(bounding=("KILL",)), "there is no capability 'KILL'; did you mean CAP_KILL?"),
    ],
)
def test_sets_that_contradict_each_other(sets: Sets, text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        check(sets)
    assert text in str(caught.value)


@given(sets_of_five, sets_of_five)
def test_what_is_left_is_available(asked: Sets, held: Sets) -> None:
    left = available(asked, held, available_only=True)
    assert available(left, held) == left
    for field in asked._fields:
        assert set(getattr(left, field)) <= set(getattr(asked, field))


def test_lacking_one_is_named() -> None:
    held = Sets(bounding=ALL, permitted=tuple(name for name in ALL if name != "CAP_SYS_RESOURCE"))
    assert available(DEFAULT, held) == DEFAULT
    with pytest.raises(Unsupported, match=r"cannot give CAP_SYS_RESOURCE \(effective set\): this process does not hol"):
        available(Sets(effective=ALL, permitted=ALL), held)


def test_current_sets_are_readable_by_anyone() -> None:
    sets = capabilities.current()
    assert capabilities.effective() == sets.effective
    assert capabilities.last() < 64


@pytest.mark.parametrize("field", ["bounding", "effective", "inheritable", "permitted", "ambient"])
def test_lacking_one_names_the_set(field: str) -> None:
    with pytest.raises(Unsupported, match=rf"cannot give CAP_KILL \({field} set\)"):
        available(Sets(**{field: ("CAP_KILL",)}), Sets(permitted=("CAP_CHOWN",), bounding=("CAP_CHOWN",)))
