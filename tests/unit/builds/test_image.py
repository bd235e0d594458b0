"""`corten.Image` as a value: what its methods add, and what they refuse. Nothing is built."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import corten
from corten.build import instructions as i
from corten.build.evaluate import Setting, evaluate
from corten.build.image import VENV
from corten.errors import InvalidInput, NotFound


def test_images_never_change() -> None:
    base = corten.Image("debian:bookworm")
    one = base.run("a")
    two = one.run("b")
    assert (len(base.steps), len(one.steps), len(two.steps)) == (0, 1, 2)
    assert [step.line for step in two.steps] == [1, 2]
    assert two == corten.Image("debian:bookworm").run("a", "b")
    with pytest.raises(AttributeError):
        one.base = "x"  # type: ignore[misc]


def test_the_environment_for_packages_is_made_once() -> None:
    image = corten.Image("debian:bookworm").pip_install("a").pip_install("b==2.*", "c")
    texts = [step.text for step in image.steps]
    assert texts == [f"python environment {VENV}", f"env PATH {VENV}/bin", "pip_install a", "pip_install 'b==2.*' c"]


def test_commands_are_quoted_for_the_shell() -> None:
    image = corten.Image("x").pip_install("a>=1; python_version<'4'", find_links="/a b", pre=True)
    step = image.steps[-1]
    assert isinstance(step, i.Run)
    words = "--find-links '/a b' --pre  'a>=1; python_version<'\"'\"'4'\"'\"''"
    assert step.command.words[0].endswith(words)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20))
def test_values_come_out_as_they_went_in(value: str) -> None:
    image = corten.Image("x").env(A=value).entrypoint(["e", value])
    config = evaluate(image.steps, {}, Setting("Image"))[-1].config
    assert config == {"Env": [f"A={value}"], "Entrypoint": ["e", value]}


def test_local_files_are_shown_or_copied(tmp_path: Path) -> None:
    (tmp_path / "$d").mkdir()
    (tmp_path / "f").write_text("x")
    image = corten.Image("x").add_local_dir(tmp_path / "$d", "/app").add_local_file(tmp_path / "f", "/etc/")
    assert [(mount.source, mount.target, mount.read_only) for mount in image.mounts] == [
        (f"{tmp_path}/$d", "/app", True),
        (f"{tmp_path}/f", "/etc/f", True),
    ]
    assert image.steps == ()
    image = image.add_local_file(tmp_path / "f", "/f", copy=True).add_local_dir(tmp_path / "$d", "/d", copy=True)
    steps = [done.step for done in evaluate(image.steps, {}, Setting("Image"))]
    assert steps == [
        i.Copy(1, image.steps[0].text, ("f",), "/f", from_="local-0"),
        i.Copy(2, image.steps[1].text, (".",), "/d", from_="local-1"),
    ]
    assert image.contexts == (("local-0", str(tmp_path), ()), ("local-1", f"{tmp_path}/$d", ()))


def test_what_cannot_be(tmp_path: Path) -> None:
    image = corten.Image("x")
    with pytest.raises(InvalidInput, match="pip_install: names no package"):
        image.pip_install()
    with pytest.raises(InvalidInput, match="apt_install: '-y' is no package"):
        image.apt_install("-y")
    with pytest.raises(NotFound, match=r"none\.txt: no such file"):
        image.pip_install_from_requirements("none.txt")
    with pytest.raises(NotFound, match=r"uv_sync: .*/pyproject.toml: no such file"):
        image.uv_sync(tmp_path)
    with pytest.raises(NotFound, match="add_local_dir: /nowhere: no such directory"):
        image.add_local_dir("/nowhere", "/x")
    with pytest.raises(InvalidInput, match="'x' is not absolute"):
        image.add_local_dir(tmp_path, "x")
    with pytest.raises(InvalidInput, match="ignore needs copy=True"):
        image.add_local_dir(tmp_path, "/x", ignore=["*"])
