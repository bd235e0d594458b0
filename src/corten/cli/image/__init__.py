"""`corten image …`, and the same under the names that docker users know (`corten pull`, `corten images`, …)."""

from __future__ import annotations

import sys

from corten.cli.parser import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# name: (module, function, one line for --help)
COMMANDS = {
    "ls": ("listing", "ls", "List images"),
    "inspect": ("listing", "inspect", "Show an image's configuration and manifest as JSON"),
    "history": ("listing", "history", "Show what made each layer of an image"),
    "tag": ("names", "tag", "Give an image another name"),
    "rm": ("names", "rm", "Remove images, or names of them"),
    "prune": ("names", "prune", "Remove images without a name, and what no image needs"),
    "bootstrap": ("bootstrapping", "bootstrap", "Put a minimal Debian together, without a registry"),
    "pull": ("transfer", "pull", "Fetch an image from its registry"),
    "push": ("transfer", "push", "Send an image to a registry"),
    "save": ("archives", "save", "Write images to an archive"),
    "load": ("archives", "load", "Read images from an archive"),
    "import": ("archives", "import_", "Make an image of a root file system in a tar archive"),
    "export": ("archives", "export", "Write the root file system of an image to a tar archive"),
}
ALIASES = {"list": "ls", "remove": "rm"}


def run(words: Sequence[str]) -> int:
    """Run a sub-command; its exit code."""
    name = words[0] if words else "--help"
    if name in ("--help", "-h", "help"):
        listed = "\n".join(f"  {name:<10} {line}" for name, (_, _, line) in COMMANDS.items())
        sys.stdout.write(
            "Usage: corten image COMMAND [OPTIONS]\n\nImages: where they come from, what there is, what to do with "
            f"them.\n\nCommands:\n{listed}\n\nSee 'corten image COMMAND --help'.\n"
        )
        return 0
    return call(ALIASES.get(name, name), words[1:])


def call(name: str, words: Sequence[str]) -> int:
    """Run the sub-command of a name. UsageError: there is none."""
    if name not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(name, COMMANDS, 1)
        hint = f"did you mean {near[0]}?" if near else "see 'corten image --help'"
        raise UsageError(f"image: unknown command {name}: {hint}")
    module, function, _ = COMMANDS[name]
    code: int = getattr(__import__(f"corten.cli.image.{module}", fromlist=[function]), function)(words)
    return code
