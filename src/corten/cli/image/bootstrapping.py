"""`corten image bootstrap`: a base image without a registry."""

from __future__ import annotations

import sys

from corten import output
from corten.cli.parser import Command, Group, Option, parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

BOOTSTRAP = Command(
    "corten image bootstrap",
    "[OPTIONS] NAME:RELEASE",
    "Put a minimal Debian together from its packages, with mmdebstrap and the mirrors that it finds. The same packages "
    "give the same digest, which is printed; what went in is written in the image.",
    (
        Group(
            "Options",
            (
                Option(("--packages",), "LIST", "More packages, such as python3,python3-numpy", repeat=True),
                Option(("--variant",), "NAME", "essential, apt, minbase (the default), buildd or standard"),
                Option(("--mirror",), "URL", "Where packages come from, or a line of sources.list", repeat=True),
                Option(("-q", "--quiet"), help="Print nothing but the digest"),
            ),
        ),
    ),
    minimum=1,
    maximum=1,
    missing="image bootstrap: needs a name and a release, such as: corten image bootstrap debian:bookworm",
    interspersed=True,
)


def bootstrap(words: Sequence[str]) -> int:
    """Bootstrap; 0."""
    values, (name,) = parse(BOOTSTRAP, words)
    from corten.build.bootstrap import bootstrap as make
    from corten.build.bootstrap import request
    from corten.engine.home import directory

    wanted = request(name, values.get("packages", ()), values.get("variant", "minbase"), values.get("mirror", ()))
    quiet = values.get("quiet", False)

    def say(line: str) -> None:
        if not quiet:
            output.remark(line)

    sys.stdout.write(f"{make(directory(), wanted, say).digest}\n")
    return 0
