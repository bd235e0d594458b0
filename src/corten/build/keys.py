"""Keys under which the results of steps are found again: digests of all that a result depends on. Pure.

Rule 1: what a step stands on counts by its content (the digests of its layers), not by how it came about.
Rule 2: what cannot change the result is left out: labels, names of stages, proxies, secrets' contents, times of files.
Rule 3: the version below changes when the same step comes to make something else.
"""

from __future__ import annotations

from corten.build.evaluate import DirectoryStep, RunStep

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from corten.build.instructions import Copy

_VERSION = "1"


def run_key(below: Sequence[str], step: RunStep, mounts: Sequence[str], network: str, latest: int | None) -> str:
    """Of a RUN. below: diff ids of the layers it runs on, lowest first; mounts: digests of what is bound, in order."""
    return _digest(
        "run",
        *_list(below),
        *_list(step.argv),
        *_list([f"{name}={value}" for name, value in sorted(step.env)]),
        step.user,
        step.workdir,
        step.script,
        *_list([repr((mount.kind, sorted(mount.fields))) for mount in step.mounts]),
        *_list(mounts),
        network,
        str(latest),
    )


def copy_key(
    below: Sequence[str], step: Copy, sources: Sequence[str], owner: tuple[int, int] | None, latest: int | None
) -> str:
    """Of a COPY or ADD. sources: digests of what each source comes to; owner: as numbers.

    With `link` the layer is the same whatever lies below it.
    """
    return _digest(
        "copy",
        *_list(() if step.link else below),
        *_list(sources),
        *_list([part for doc in step.heredocs for part in (doc.name, doc.content)]),
        step.target,
        step.chmod,
        f"{step.link} {step.parents} {step.unpack} {step.add}",
        repr(owner),
        str(latest),
    )


def directory_key(below: Sequence[str], step: DirectoryStep, owner: tuple[int, int], latest: int | None) -> str:
    """Of a WORKDIR."""
    return _digest("directory", *_list(below), step.path, repr(owner), str(latest))


def _list(words: Sequence[str]) -> list[str]:
    return [str(len(words)), *words]


def _digest(*words: str) -> str:
    import hashlib

    found = hashlib.sha256()
    for word in (_VERSION, *words):
        data = word.encode("utf-8", "surrogateescape")
        found.update(len(data).to_bytes(8, "little") + data)
    return found.hexdigest()
