"""Builds by an ordinary user: the same image as root's, files of all owners included; one with one id only, none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from builds.conftest import BASE
from ordinary_user import UID, User

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

TEXT = BASE + (
    "RUN mkdir -p /d/e && echo x > /d/f && chown 1000:1001 /d/f && chown 5:6 /d/e\n"
    "RUN rm -r /d/e && mkdir /d/e && echo y > /d/e/g && touch -d '2001-01-01 00:00:00' /d /d/f /d/e /d/e/g /bin /\n"
    "COPY --chown=7:8 s /s\nWORKDIR /w\nFROM base\nCOPY --from=0 /d /copied\nUSER 9\n"
    "RUN --mount=type=bind,from=0,source=/d,target=/m cat /m/e/g && id -u\n"
    "RUN --mount=type=secret,id=s --mount=type=cache,id=own,target=/c,uid=9 touch /c/x && ls -n /run/secrets\n"
)


@pytest.fixture
def user() -> Iterator[User]:
    made = User()
    yield made
    made.close()


def test_the_same_image_as_roots(
    user: User, context: Path, command: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    (context / "Containerfile").write_text(TEXT.replace("FROM base\n", "FROM base AS last\n"))
    (context / "s").write_text("s")
    words = ("build", "-q", "--timestamp", "1000000000", "--secret", "id=s,src=/etc/hostname")
    done = command(*words, str(context))
    assert done.returncode == 0, done.stderr
    subprocess.run(["cp", "-a", str(context), f"{user.home}/context"], check=True)
    subprocess.run(["chown", "-R", f"{UID}:{UID}", f"{user.home}/context"], check=True)
    own = user.with_ranges().corten(*words, "context")
    assert own.returncode == 0, own.stderr
    assert own.stdout == done.stdout
    again = user.with_ranges().corten(*words, "--no-cache", "context")
    assert again.stdout == done.stdout, again.stderr
    assert user.leftovers() == []


def test_without_a_range_of_ids_there_is_no_build(user: User) -> None:
    (user.home / "Containerfile").write_text("FROM scratch\nCOPY <<F /f\nx\nF\n")
    done = user.corten("build", "-q", ".")
    assert done.returncode == 125
    assert done.stderr.startswith("corten: Containerfile:2: COPY: builds need more ids than one: ")
    assert done.stderr.count("\n") == 1
