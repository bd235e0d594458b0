"""The options about the form of a view: data, text for other programs, pictures. Checked before anything is read."""

from __future__ import annotations

import sys

from corten.cli.parser import Group, Option, UsageError
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.views.picture import Picture

FORMATS = ("text", "json", "dot", "mermaid")


def group(json_help: str = "The same as --format json") -> Group:
    """The rows of the table of options."""
    return Group(
        "Output",
        (
            Option(("--format",), "FORMAT", f"What to print: {', '.join(FORMATS)} (default: text)"),
            Option(("--json",), "", json_help),
            Option(("--output",), "FILE", "Write a picture instead: FILE.svg, .png, .dot (Graphviz) or .mmd (Mermaid)"),
            Option(("--theme",), "THEME", "Of a picture: auto (an SVG follows its reader), light, dark"),
            Option(("--layout",), "LAYOUT", "Of a picture: boxes in boxes (default), or a tree"),
        ),
    )


class Form:
    """What was asked for. format: one of FORMATS; output: the file of a picture, empty for none."""

    def __init__(self, values: dict[str, Any]) -> None:
        self.format: str = values.get("format", "json" if values.get("json") else "text")
        self.output: str = values.get("output", "")
        self.theme: str = values.get("theme", "auto")
        self.layout: str = values.get("layout", "")
        if self.format not in FORMATS:
            raise UsageError(f"--format: {self.format!r} is not one of {', '.join(FORMATS)}")
        if values.get("json") and self.format != "json":
            raise UsageError(f"--json and --format {self.format} exclude each other")
        if values.get("output") == "":
            raise UsageError("--output: the name of a file is missing")
        if self.output and ("format" in values or values.get("json")):
            raise UsageError("--output writes a picture instead of printing: leave --format and --json out")
        drawn = bool(self.output) or self.format in ("dot", "mermaid")
        if not drawn and ("theme" in values or "layout" in values):
            raise UsageError(f"--{'theme' if 'theme' in values else 'layout'} is for pictures: it needs --output")
        if drawn:
            self._check_drawing()

    def _check_drawing(self) -> None:
        from corten.views import drawing, picture

        if self.theme not in drawing.THEMES:
            raise UsageError(f"--theme: {self.theme!r} is not one of {', '.join(drawing.THEMES)}")
        if self.layout and self.layout not in picture.LAYOUTS:
            raise UsageError(f"--layout: {self.layout!r} is not one of {', '.join(picture.LAYOUTS)}")
        if self.output:
            try:
                drawing.format_of(self.output)
            except InvalidInput as error:
                raise UsageError(f"--output: {error}") from None

    @property
    def drawn(self) -> bool:
        """Whether a picture is wanted, in a file or as text."""
        return bool(self.output) or self.format in ("dot", "mermaid")

    def draw(self, make: Callable[[], Picture]) -> None:
        """Write the picture."""
        from corten.views import drawing

        if self.output:
            drawing.save(make(), self.output, self.theme, self.layout)
        else:
            sys.stdout.write(drawing.render(make(), self.format, self.theme, self.layout).decode())


def print_json(data: Any, indent: int = 2) -> None:
    """Data for other programs."""
    from corten.json_text import dumps

    sys.stdout.write(dumps(data, indent) + "\n")
