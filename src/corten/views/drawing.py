"""Pictures written to files: SVG and PNG laid out by Graphviz, DOT and Mermaid as text.

Rule 1: the suffix of the file says what is written; one that is not known is an error before anything is read.
Rule 2: a file is written under another name and renamed: half a picture is never seen.
Rule 3: an SVG follows the reader's theme (prefers-color-scheme) unless one is asked for; a PNG cannot, and is light.
"""

from __future__ import annotations

import os

from corten.errors import Error, InvalidInput, Unsupported
from corten.views.picture import Picture, dot, mermaid

FORMATS = {".svg": "svg", ".png": "png", ".dot": "dot", ".gv": "dot", ".mmd": "mermaid", ".mermaid": "mermaid"}
THEMES = ("auto", "light", "dark")

# role: (light, dark). Contrast of text on its ground is at least 4.5:1 (WCAG AA) in both. No two roles of the light
# theme may share a colour where the dark ones differ: the style sheet of an SVG finds them by it.
_COLOURS = {
    "page": ("#ffffff", "#0d1117"),
    "text": ("#1f2328", "#e6edf3"),
    "dim": ("#59636e", "#9198a1"),
    "track": ("#d8dee4", "#2a313c"),
    "bar": ("#0969da", "#4493f8"),
    "bar-hot": ("#cf222e", "#f85149"),
    "plain-fill": ("#fdfdfe", "#12181f"),
    "plain-nest": ("#f6f8fa", "#161d26"),
    "plain-line": ("#c9d1d9", "#3d444d"),
    "container-fill": ("#eef8ff", "#0b2239"),
    "container-nest": ("#e3f2fd", "#0a1e33"),
    "container-line": ("#54aeff", "#1f6feb"),
    "hot-fill": ("#fff1f0", "#33121a"),
    "hot-nest": ("#ffe9e7", "#2b1016"),
    "hot-line": ("#ff8182", "#da3633"),
    "shared": ("#eaeef2", "#232a33"),
    "shared-text": ("#57606a", "#9ba3ad"),
    "own": ("#0860c4", "#58a6ff"),
    "own-text": ("#fefefe", "#0b1320"),
    "unknown": ("#fff8c5", "#3f2f02"),
    "unknown-text": ("#7d4e00", "#e3b341"),
    "group1": ("#1a7f37", "#3fb950"),
    "group2": ("#8250df", "#bc8cff"),
    "group3": ("#bf3989", "#f778ba"),
    "group4": ("#9a6700", "#d29922"),
    "group5": ("#0f7b83", "#39c5cf"),
    "group6": ("#bc4c00", "#f0883e"),
}
GROUPS = 6
"""How many colours there are for what some share."""

_SAME_AS = {
    "plain-text": "text", "container-text": "text", "hot-text": "text",
    **{f"group{number}-text": "own-text" for number in range(1, GROUPS + 1)},
}  # fmt: skip


def palette(theme: str) -> dict[str, str]:
    """The colour of each role; `auto` is light, for what cannot change."""
    at = THEMES.index("dark") - 1 if theme == "dark" else 0
    found = {role: pair[at] for role, pair in _COLOURS.items()}
    return {**found, **{role: found[other] for role, other in _SAME_AS.items()}}


def format_of(path: str) -> str:
    """What a file of this name holds. `InvalidInput`: the suffix is not known."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in FORMATS:
        raise InvalidInput(f"{path}: the suffix says what to draw, and {suffix or 'none'} is not one of {_suffixes()}")
    if not os.path.isdir(os.path.dirname(path) or "."):
        raise InvalidInput(f"{path}: there is no directory {os.path.dirname(path)}")
    return FORMATS[suffix]


def _suffixes() -> str:
    return ", ".join(FORMATS)


def save(picture: Picture, path: str, theme: str = "auto", layout: str = "") -> None:
    """Write a picture to a file. `InvalidInput`, `Unsupported` (Graphviz is not installed), `Error`."""
    kind = format_of(path)
    data = render(picture, kind, theme, layout)
    draft = f"{path}.{os.getpid()}"
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            with open(fd, "wb") as file:
                file.write(data)
            os.rename(draft, path)
        except BaseException:
            os.unlink(draft)
            raise
    except OSError as error:
        raise Error(f"cannot write {path}: {error.strerror}") from None


def render(picture: Picture, kind: str, theme: str = "auto", layout: str = "") -> bytes:
    """A picture as `svg`, `png`, `dot` or `mermaid`. layout: `boxes` or `tree`; by default pictures are boxes, and
    text, which is for other programs, is the graph itself.
    """
    if kind == "mermaid":
        return mermaid(picture).encode()
    if kind == "dot":
        return dot(picture, palette(theme), layout or "tree").encode()
    text = dot(picture, palette(theme), layout or "boxes")
    drawn = _graphviz(text.encode(), kind)
    return _themed(drawn, theme) if kind == "svg" else drawn


def _graphviz(text: bytes, kind: str) -> bytes:
    import subprocess

    try:
        done = subprocess.run(["dot", f"-T{kind}"], input=text, capture_output=True, check=False)
    except FileNotFoundError:
        raise Unsupported(
            "pictures are laid out by Graphviz, and there is no program `dot`: apt-get install graphviz, "
            "or write .dot or .mmd, which need nothing"
        ) from None
    if done.returncode or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise Error(f"dot -T{kind} failed: {lines[0] if lines else f'exit code {done.returncode}'}")
    return done.stdout


def _themed(svg: bytes, theme: str) -> bytes:
    """An SVG that turns dark where its reader is: every colour of the light theme has its dark one."""
    if theme != "auto":
        return svg
    rules = "".join(
        f'[fill="{light}"]{{fill:{dark}}}[stroke="{light}"]{{stroke:{dark}}}' for light, dark in _COLOURS.values()
    )
    style = f"<style>@media (prefers-color-scheme:dark){{{rules}}}</style>".encode()
    head, sign, rest = svg.partition(b'xmlns:xlink="http://www.w3.org/1999/xlink">')
    return head + sign + style + rest
