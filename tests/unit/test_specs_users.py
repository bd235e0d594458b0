"""Users and groups of a root file system, in docker's rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.engine.users import Identity, resolve_user
from corten.errors import InvalidInput

PASSWD = """root:x:0:0:root:/root:/bin/sh
# comment:x:1:1::/:
daemon:x:1:1:daemon:/usr/sbin:/bin/false
short:x
ann:x:1000:100:Ann:/home/ann:/bin/sh
42:x:7:7:a name of digits:/seven:/bin/sh
bad:x:many:1::/:
"""
GROUP = """root:x:0:
users:x:100:
audio:x:29:ann,daemon
video:x:44:bob,ann
"""


@pytest.mark.parametrize(
    ("user", "expected"),
    [
        ("", Identity(0, 0, (), "/root", "root")),
        ("root", Identity(0, 0, (), "/root", "root")),
        ("ann", Identity(1000, 100, (29, 44), "/home/ann", "ann")),
        ("1000", Identity(1000, 100, (29, 44), "/home/ann", "ann")),
        ("ann:audio", Identity(1000, 29, (), "/home/ann", "ann")),
        ("ann:5", Identity(1000, 5, (), "/home/ann", "ann")),
        ("5555", Identity(5555, 0, (), "/", "")),
        ("5555:6666", Identity(5555, 6666, (), "/", "")),
        (":29", Identity(0, 29, (), "/root", "root")),
        ("42", Identity(42, 0, (), "/", "")),  # a number is always an id
    ],
)
def test_who_it_is(user: str, expected: Identity) -> None:
    assert resolve_user(user, PASSWD, GROUP) == expected


def test_without_lists_numbers_do() -> None:
    assert resolve_user("", "", "") == Identity(0, 0, (), "/root", "")
    assert resolve_user("7:8", "", "") == Identity(7, 8)


def test_further_groups_come_on_top() -> None:
    assert resolve_user("ann", PASSWD, GROUP, ("video", "7", "root")).groups == (29, 44, 7, 0)


@pytest.mark.parametrize(
    ("user", "words"),
    [
        ("bob", "--user: there is no user 'bob' in the container's /etc/passwd: give its number"),
        ("bad", "--user: there is no user 'bad'"),
        ("ann:nope", "--user: there is no group 'nope' in the container's /etc/group: give its number"),
        ("4294967295", "--user: the id 4294967295 is beyond the largest"),
        ("-1", "--user: there is no user '-1'"),
    ],
)
def test_names_must_be_there(user: str, words: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        resolve_user(user, PASSWD, GROUP)
    assert str(caught.value).startswith(words)


@given(st.text(), st.text())
def test_no_list_however_broken_is_more_than_an_error(passwd: str, group: str) -> None:
    assert resolve_user("5:6", passwd, group).gid == 6
