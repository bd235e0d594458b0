"""Pictures as text: what stands in them, what is escaped, colours that can be read; files and their errors."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.errors import Error, InvalidInput, Unsupported
from corten.linux.namespaces import KINDS
from corten.views import drawing, sharing_picture, tree_picture
from corten.views.picture import Box, Chip, Picture, dot, mermaid
from corten.views.sharing import Namespace, Namespaces
from corten.views.trees import Figures, Node, Tree

LIGHT = drawing.palette("light")
SMALL = Picture(
    "heading",
    (Box("outer", ("a line",), None, (), "plain", (Box("inner", (), 0.5, (Chip("net", "own"),), "hot"),)),),
    ("note",),
)
SVG = "{http://www.w3.org/2000/svg}"


def words_of(svg: bytes) -> list[str]:
    return [element.text or "" for element in Xml.fromstring(svg).iter(f"{SVG}text")]


@pytest.mark.parametrize("layout", ["boxes", "tree"])
def test_an_svg_says_what_the_picture_says(layout: str) -> None:
    said = " ".join(words_of(drawing.render(SMALL, "svg", "auto", layout)))
    assert all(word in said for word in ("heading", "note", "outer", "a line", "inner", "net"))


@given(st.text(max_size=20))
def test_any_name_can_be_drawn_as_text(name: str) -> None:
    found = Picture(name, (Box(name, (name,), None, (Chip(name, "own"),)),), (name,))
    for text in (dot(found, LIGHT), mermaid(found)):
        assert "\0" not in text
        assert all(char.isprintable() or char == "\n" for char in text)
    assert [line.count('"') for line in mermaid(found).splitlines() if line.startswith("  n")] == [2]


def test_names_that_mean_something_to_graphviz_are_drawn_as_they_are() -> None:
    names = ['<b>&"quoted"\\n</b>', "a]b}c;d", "\udcff\x1b[31m", ""]
    found = Picture("x", tuple(Box(name) for name in names))
    said = words_of(drawing.render(found, "svg"))
    assert names[0] in said
    assert names[1] in said
    assert "??[31m" in said


def test_a_png_is_one() -> None:
    assert drawing.render(SMALL, "png", "dark").startswith(b"\x89PNG\r\n\x1a\n")


def test_an_svg_follows_its_reader_unless_told_otherwise() -> None:
    follows, dark, light = (drawing.render(SMALL, "svg", theme).decode() for theme in ("auto", "dark", "light"))
    assert "prefers-color-scheme:dark" in follows
    assert "prefers-color-scheme" not in dark + light
    page, night = drawing.palette("light")["page"], drawing.palette("dark")["page"]
    assert page in light
    assert page not in dark
    assert night in dark
    used = set(re.findall(r'(?:fill|stroke)="(#[0-9a-f]{6})"', follows))
    rules = follows.partition("<style>")[2].partition("</style>")[0]
    assert used
    assert all(f'[fill="{colour}"]' in rules for colour in used)


def luminance(colour: str) -> float:
    """Source: WCAG 2.1, relative luminance."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read_on_its_ground(theme: str) -> None:
    found = drawing.palette(theme)
    for role in ("plain", "container", "hot"):
        for ground in (f"{role}-fill", f"{role}-nest"):
            assert contrast(found[f"{role}-text"], found[ground]) >= 4.5, ground
            assert contrast(found["dim"], found[ground]) >= 4.5, ground
    for role in ("shared", "own", "unknown", *(f"group{number + 1}" for number in range(drawing.GROUPS))):
        assert contrast(found[f"{role}-text"], found[role]) >= 4.5, role
    assert contrast(found["dim"], found["page"]) >= 4.5


def test_each_colour_of_the_light_theme_has_one_dark_one() -> None:
    dark = drawing.palette("dark")
    pairs = {(LIGHT[role], dark[role]) for role in LIGHT}
    assert len({light for light, _ in pairs}) == len(pairs)


# --- files


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "x.svg"
    target.write_text("old")
    drawing.save(SMALL, str(target))
    assert words_of(target.read_bytes())
    target.write_text("old")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unsupported, match="there is no program `dot`: apt-get install graphviz"):
        drawing.save(SMALL, str(target))
    assert target.read_text() == "old"
    drawing.save(SMALL, str(tmp_path / "x.mmd"))
    drawing.save(SMALL, str(tmp_path / "x.DOT"))
    assert sorted(os.listdir(tmp_path)) == ["x.DOT", "x.mmd", "x.svg"]


def test_a_dot_that_fails_says_what_it_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = tmp_path / "dot"
    broken.write_text("#!/bin/sh\necho no fonts >&2\nexit 3\n")
    broken.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(Error, match="dot -Tpng failed: no fonts"):
        drawing.save(SMALL, str(tmp_path / "x.png"))
    assert not (tmp_path / "x.png").exists()


@pytest.mark.parametrize("name", ["x.pdf", "x", ".svg", "x.svg.txt"])
def test_a_suffix_that_is_not_known_is_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="the suffix says what to draw"):
        drawing.format_of(name)


def test_a_directory_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no directory"):
        drawing.format_of(f"{tmp_path}/no/x.svg")
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(Error, match=r"cannot write .*x\.svg: Is a directory"):
        drawing.save(SMALL, f"{tmp_path}/x.svg")
    assert os.listdir(tmp_path) == ["x.svg"]


def test_graphviz_reads_our_dot() -> None:
    assert shutil.which("dot"), "graphviz is not installed"
    for layout in ("boxes", "tree"):
        done = subprocess.run(["dot", "-Tplain"], input=dot(SMALL, LIGHT, layout), capture_output=True, text=True,
                              check=True)  # fmt: skip
        assert done.stderr == ""
        edges = [line for line in done.stdout.splitlines() if line.startswith("edge")]
        assert len(edges) == (layout == "tree")


# --- what is drawn of a machine


def machine(*lanes: tuple[int, dict[str, int]], containers: dict[str, set[int]] | None = None) -> Namespaces:
    """Processes 1, 2, ... in lanes: (how many, the namespaces that are not number 1)."""
    where: dict[int, dict[str, int]] = {}
    for count, own in lanes:
        for _ in range(count):
            where[len(where) + 1] = {kind: own.get(kind, 1) for kind in KINDS}
    rows = []
    for kind in KINDS:
        for identity in sorted({of[kind] for of in where.values()}):
            pids = frozenset(pid for pid, of in where.items() if of[kind] == identity)
            parent = 1 if kind in ("pid", "user") and identity > 1 else None
            rows.append(Namespace(kind, identity, pids, None, (), parent))
    named = tuple((name, frozenset(pids)) for name, pids in (containers or {}).items())
    return Namespaces(KINDS, tuple(rows), (), named)


def test_a_box_for_each_set_of_processes_that_share_everything() -> None:
    found = machine((5, {}), (2, {"net": 2, "pid": 2}), (1, {"net": 2, "mnt": 3}), containers={"web": {6, 7}})
    picture = sharing_picture.of(found)
    assert picture.title.startswith("8 processes in 3 sets")
    assert [box.role for box in picture.boxes] == ["plain", "container", "plain"]
    assert picture.boxes[1].title == "web"
    looks = [{chip.text: chip.role for chip in box.chips if chip.role != "shared"} for box in picture.boxes]
    assert looks == [{}, {"net 1": "group1", "pid": "own"}, {"net 1": "group1", "mnt": "own"}]


def test_boxes_lie_in_their_user_namespace_if_there_are_several() -> None:
    lanes = [(2, {}), (1, {"user": 2}), (1, {"user": 2, "net": 2}), (1, {"user": 3})]
    (top,) = sharing_picture.of(machine(*lanes)).boxes
    assert [len(box.inside) for box in top.inside] == [0, 0, 2]
    assert [box.title for box in top.inside if box.inside] == ["user namespace 2"]
    alone = sharing_picture.of(machine((2, {}), (1, {"user": 3}))).boxes[0].inside
    assert [{chip.text for chip in box.chips if chip.role == "own"} for box in alone] == [set(), {"user"}]


def test_what_all_is_compared_with_is_the_machine_and_not_the_largest_container() -> None:
    picture = sharing_picture.of(machine((2, {}), (5, {"pid": 2, "net": 2}), containers={"web": {3, 4, 5, 6, 7}}))
    assert [box.title for box in picture.boxes] == ["the machine", "web"]


def test_too_many_boxes_are_drawn_as_one_of_each_make() -> None:
    lanes = [(1, {"mnt": number, "net": number}) for number in range(2, 400)]
    picture = sharing_picture.of(machine((3, {}), *lanes, (1, {"mnt": 2, "net": 3, "uts": 9})))
    assert len(picture.boxes) < 10
    assert any(box.title.startswith("395 alike") or "alike" in box.title for box in picture.boxes)
    count = sum(int(box.lines[0].split()[0]) for box in picture.boxes)
    assert count == 3 + 398 + 1


def test_a_group_shows_what_it_uses_of_the_limit_that_holds() -> None:
    nodes = (
        Node("/", {"memory": Figures()}),
        Node("/a", {"memory": Figures(200 << 20, 100 << 20)}),
        Node("/a/b", {"memory": Figures(None, 190 << 20, 12.0)}, "web"),
    )
    picture = tree_picture.of_tree(Tree(2, ("memory",), "/cg", nodes))
    (top,) = picture.boxes
    (outer,) = top.inside
    (inner,) = outer.inside
    assert (outer.lines, outer.bar, outer.role) == (("100 MiB / 200 MiB",), 0.5, "plain")
    assert (inner.title, inner.lines, inner.bar, inner.role) == (
        "web", ("190 MiB / 200 MiB^", "memory pressure 12 %"), 0.95, "hot",
    )  # fmt: skip
