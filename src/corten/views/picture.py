"""A picture as data: boxes in boxes, and the same as Graphviz DOT and Mermaid text. Pure.

Two ways to show a tree: `boxes` puts what is below a thing inside it, which is readable for hundreds; `tree` draws a
line to it. Colours are roles here; `drawing` gives them a theme.
"""

from __future__ import annotations

from corten.records import Record
from corten.views.processes import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

LAYOUTS = ("boxes", "tree")
_FONT = "Helvetica,Arial,sans-serif"
_BAR = 120  # points
_TABLE = '<TABLE ALIGN="LEFT" BORDER="0" CELLBORDER="0"'
_ROOM = "&#160;&#160;"
"""At the end of a nest's title, which begins some way from the nest's edge: Graphviz does not count that in."""
_LONGEST = 30  # characters of a title


class Chip(Record):
    """A small labelled field. role: a key of the palette."""

    text: str
    role: str


class Box(Record):
    """A thing in the picture. title; lines: small print below it; bar: a share from 0 to 1 to draw, None for none;
    chips: a row of small fields; role: `plain`, `container` or `hot`; inside: what is in it.
    """

    title: str
    lines: tuple[str, ...] = ()
    bar: float | None = None
    chips: tuple[Chip, ...] = ()
    role: str = "plain"
    inside: tuple[Box, ...] = ()


class Picture(Record):
    """A heading, boxes, and the small print at the foot."""

    title: str
    boxes: tuple[Box, ...]
    notes: tuple[str, ...] = ()


def dot(picture: Picture, palette: dict[str, str], layout: str = "boxes") -> str:
    """Graphviz text in the colours of a palette (see `drawing`)."""
    engine = {"boxes": "osage", "tree": "dot"}[layout]
    lines = [
        "digraph corten {",
        f'  graph [layout={engine}, rankdir=LR, ranksep=0.5, nodesep=0.12, pad=0.2, pack=8, '
        f'packmode="{_grid(len(picture.boxes))}", bgcolor="{palette["page"]}", '
        f'fontname="{_FONT}", fontcolor="{palette["text"]}", fontsize=15, '
        f'labelloc=t, labeljust=l, label=<{_heading(picture, palette)}>];',
        f'  node [shape=plain, fontname="{_FONT}", fontsize=10, fontcolor="{palette["text"]}"];',
        f'  edge [color="{palette["dim"]}", arrowsize=0.5];',
    ]
    numbers = iter(range(1 << 30))
    for number, box in enumerate(picture.boxes):
        if layout == "boxes":
            lines += _nest(box, palette, numbers, "  ", number)
        else:
            lines += _branch(box, palette, numbers, "")
    return "\n".join([*lines, "}", ""])


def _heading(picture: Picture, palette: dict[str, str]) -> str:
    notes = "".join(
        f'<BR ALIGN="LEFT"/><FONT POINT-SIZE="10" COLOR="{palette["dim"]}">{_text(note, 200)}</FONT>'
        for note in picture.notes
    )
    return f"<B>{_text(picture.title, 200)}</B>{notes}<BR ALIGN=\"LEFT\"/>"


def _nest(box: Box, palette: dict[str, str], numbers: Iterator[int], indent: str, order: int) -> list[str]:
    number = next(numbers)
    if not box.inside:
        return [f"{indent}n{number} [label=<{_label(box, palette)}>, sortv={order + 1}];"]
    parts = _parts(box.inside)
    fill, line = palette[f"{box.role}-nest"], palette[f"{box.role}-line"]
    small = f'  <FONT POINT-SIZE="10" COLOR="{palette["dim"]}">{_text("  ".join(box.lines), 120)}</FONT>'
    lines = [
        f"{indent}subgraph cluster_{number} {{",
        f'{indent}  graph [label=<<B>{_text(box.title)}</B>{small if box.lines else ""}{_ROOM}>, '
        'fontsize=11, style=filled, '
        f'fillcolor="{fill}", color="{line}", fontcolor="{palette[f"{box.role}-text"]}", pack=6, '
        f'labeljust=l, packmode="{_grid(len(parts))}", sortv={order + 1}];',
    ]
    for at, part in enumerate(parts):
        if len(part) == 1:
            lines += _nest(part[0], palette, numbers, indent + "  ", at)
            continue
        lines += [f"{indent}  subgraph cluster_{next(numbers)} {{",
                  f'{indent}    graph [label="", peripheries=0, style=filled, fillcolor="{fill}", margin=0, pack=4, '
                  f'packmode="{_grid(len(part))}", sortv={at + 1}];']  # fmt: skip
        for place, inner in enumerate(part):
            lines += _nest(inner, palette, numbers, indent + "    ", place)
        lines.append(f"{indent}  }}")
    return [*lines, f"{indent}}}"]


def _parts(boxes: Sequence[Box]) -> list[tuple[Box, ...]]:
    """What is laid out together: the small boxes as one block where there are large ones beside them, for in a grid
    each would take as much room as those.
    """
    small = tuple(box for box in boxes if not box.inside)
    large = [(box,) for box in boxes if box.inside]
    return [small, *large] if len(small) > 1 and large else [(box,) for box in boxes]


def _grid(number: int) -> str:
    """How Graphviz packs so many boxes: in rows, in their order, some four times as wide as high, so that the whole
    is about half as high as wide.
    """
    return f"array_tlu{max(1, round((0.5 * number) ** 0.5 + 0.3))}"


def _branch(box: Box, palette: dict[str, str], numbers: Iterator[int], above: str) -> list[str]:
    name = f"n{next(numbers)}"
    lines = [f"  {name} [label=<{_label(box, palette)}>];"]
    if above:
        lines.append(f"  {above} -> {name};")
    for inner in box.inside:
        lines += _branch(inner, palette, numbers, name)
    return lines


def _label(box: Box, palette: dict[str, str]) -> str:
    """An HTML-like label: title, small print, bar, chips."""
    rows = [f"<B>{_text(box.title)}</B>"]
    rows += [f'<FONT POINT-SIZE="9" COLOR="{palette["dim"]}">{_text(line, 60)}</FONT>' for line in box.lines]
    cells = [f'<TR><TD ALIGN="LEFT" BALIGN="LEFT">{row}</TD></TR>' for row in rows]
    if box.bar is not None:
        cells.append(f"<TR><TD ALIGN=\"LEFT\">{_bar(box.bar, box.role, palette)}</TD></TR>")
    if box.chips:
        chips = "".join(
            f'<TD BGCOLOR="{palette[chip.role]}"><FONT POINT-SIZE="8" COLOR="{palette[chip.role + "-text"]}">'
            f"{_text(chip.text)}</FONT></TD>"
            for chip in box.chips
        )
        cells.append(f'<TR><TD ALIGN="LEFT">{_TABLE} CELLSPACING="1" CELLPADDING="2">'
                     f"<TR>{chips}</TR></TABLE></TD></TR>")  # fmt: skip
    return (
        f'<TABLE BORDER="1" CELLBORDER="0" CELLSPACING="0" CELLPADDING="2" '
        f'BGCOLOR="{palette[f"{box.role}-fill"]}" COLOR="{palette[f"{box.role}-line"]}">{"".join(cells)}</TABLE>'
    )


def _bar(share: float, role: str, palette: dict[str, str]) -> str:
    full = max(0, min(_BAR, round(share * _BAR)))
    colour = palette["bar-hot" if role == "hot" else "bar"]
    parts = [(full, colour), (_BAR - full, palette["track"])]
    cells = "".join(
        f'<TD WIDTH="{width}" HEIGHT="5" FIXEDSIZE="TRUE" BGCOLOR="{fill}"></TD>' for width, fill in parts if width
    )
    return (f'{_TABLE} CELLSPACING="0" CELLPADDING="0" FIXEDSIZE="TRUE" WIDTH="{_BAR}" HEIGHT="5">'
            f'<TR>{cells}</TR></TABLE>')  # fmt: skip


def _text(text: str, longest: int = _LONGEST) -> str:
    """Text for a label: cut, printable, with what HTML takes for its own written otherwise."""
    text = printable(text)
    if len(text) > longest:
        text = f"{text[: longest - 1]}…"
    for char, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ('"', "&quot;")):
        text = text.replace(char, entity)
    return text or " "


# --- Mermaid


def mermaid(picture: Picture) -> str:
    """Mermaid flowchart text: every box a node, a line to what is in it."""
    lines = [f"%% {printable(picture.title)}", *(f"%% {printable(note)}" for note in picture.notes), "flowchart LR"]
    used: dict[str, list[str]] = {}
    numbers = iter(range(1 << 30))
    for box in picture.boxes:
        lines += _mermaid(box, numbers, "", used)
    looks = {
        "hot": "fill:#ffebe9,stroke:#cf222e,color:#a40e26",
        "container": "fill:#ddf4ff,stroke:#0969da,color:#0a3069",
    }
    for role, look in looks.items():
        if used.get(role):
            lines += [f"  classDef {role} {look}", f"  class {','.join(used[role])} {role}"]
    return "\n".join([*lines, ""])


def _mermaid(box: Box, numbers: Iterator[int], above: str, used: dict[str, list[str]]) -> list[str]:
    name = f"n{next(numbers)}"
    used.setdefault(box.role, []).append(name)
    chips = " ".join(chip.text for chip in box.chips if chip.role != "shared")
    words = [box.title, *box.lines, *([f"own: {chips}"] if chips else [])]
    lines = [f'  {name}["{"<br/>".join(_mermaid_text(word) for word in words)}"]']
    if above:
        lines.append(f"  {above} --> {name}")
    for inner in box.inside:
        lines += _mermaid(inner, numbers, name, used)
    return lines


def _mermaid_text(text: str) -> str:
    """Mermaid takes HTML's signs, quotes and # for its own: they are written as its entity codes."""
    special = '&<>"#;`\\'
    return "".join(f"#{ord(char)};" if char in special else char for char in printable(text[:60]))
