"""One stage while it is built: its instructions in order, each with its key, its result, its line of history."""

from __future__ import annotations

import collections
import time

from corten.build import inside, keys, running
from corten.build.evaluate import DirectoryStep, Done, RunStep
from corten.build.failures import BuildFailed
from corten.build.gathering import Gathered
from corten.build.instructions import Copy, Maintainer
from corten.build.lines import ContainerfileError
from corten.build.placing import Placing
from corten.build.results import Result
from corten.build.run_mounts import RunMounts
from corten.build.selection import SelectionError
from corten.build.stages import Containerfile, Stage
from corten.build.trees import Context, Tree, identity_of, owner_of
from corten.build.views import make_layer
from corten.errors import Error, InvalidInput
from corten.images.store.images import Layer
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.build.builder import Builder
    from corten.build.instructions import Instruction

_LAST = 40  # lines of a failed step that its error keeps


class Built(Record):
    """A stage that is done. history: as OCI has it; created: the latest of its steps, None before there is one."""

    layers: tuple[Layer, ...]
    config: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    platform: dict[str, str]
    created: str = ""
    author: str = ""


class StageWorker:
    """One stage while it is built."""

    def __init__(
        self, builder: Builder, file: Containerfile, stage: Stage, base: Built, done: dict[int, Built]
    ) -> None:
        self._builder, self._file, self._stage, self._done = builder, file, stage, done
        self._name = stage.name or f"stage {stage.number}"
        self._last: collections.deque[bytes] = collections.deque(maxlen=_LAST)
        self.built = base

    def do(self, one: Done, number: int, count: int) -> None:
        """Carry out one instruction. ContainerfileError, BuildFailed."""
        step, at = one.step, one.instruction

        def begin(key: str) -> None:
            how = "cached" if key and self._builder.cached(key) else ""
            self._builder.progress.step(self._name, number, count, at, how)

        try:
            if isinstance(step, RunStep):
                result = self._run(step, begin)
            elif isinstance(step, Copy):
                result = self._copy(step, begin)
            elif isinstance(step, DirectoryStep):
                result = self._directory(step, begin)
            else:
                begin("")
                result = None
        except (SelectionError, InvalidInput) as error:
            if isinstance(error, ContainerfileError):
                raise
            raise ContainerfileError(self._file.name, at.line, at.word, str(error)) from None
        except running.Failed as failure:
            output = b"".join(self._last).decode(errors="replace")
            last = output.strip().rpartition("\n")[2] if self._builder.progress.silent else ""
            why = f"{_short(at)}: {failure}" + (f": {last}" if last else "")
            raise BuildFailed(self._file.name, at.line, at.word, why, output) from None
        except Error as error:
            raise BuildFailed(self._file.name, at.line, at.word, str(error)) from None
        self._note(one, result)

    def _note(self, one: Done, result: Result | None) -> None:
        built, epoch = self.built, self._builder.options.epoch
        created = built.created
        if result is not None:
            created = max(created, time_text(result.created if epoch is None else min(result.created, epoch)))
        layer = result.layer if result is not None else None
        entry: dict[str, Any] = {"created_by": " ".join(one.instruction.text.split())}
        if created:
            entry["created"] = created
        if layer is None:
            entry["empty_layer"] = True
        layers = (*built.layers, layer) if layer is not None else built.layers
        author = one.instruction.name if isinstance(one.instruction, Maintainer) else built.author
        self.built = built.replace(
            layers=layers, config=one.config, history=(*built.history, entry), created=created, author=author
        )

    @property
    def _below(self) -> tuple[str, ...]:
        return tuple(layer.diff_id for layer in self.built.layers)

    def _source_of(self, word: str) -> Tree | Context:
        """The stage, further context or image that `from=` means."""
        number = self._file.find(word, self._stage.number)
        if number is not None:
            return self._builder.tree(self._done[number].layers)
        for name, context in self._builder.options.contexts:
            if name == word:
                return context
        return self._builder.tree(self._builder.find_image(word).layers)

    def _run(self, step: RunStep, begin: Callable[[str], None]) -> Result:
        builder, options = self._builder, self._builder.options
        network = {"": options.network, "default": options.network}.get(step.network, step.network)
        mounts = RunMounts(
            step.mounts, builder.context, self._source_of, builder.secrets, f"{builder.home}/caches"
        )
        key = keys.run_key(self._below, step, mounts.digests(), network, options.epoch)

        def output(line: bytes) -> None:
            self._last.append(line)
            builder.progress.output(self._name, line)

        def do(draft: str) -> tuple[Layer | None, int]:
            make_layer(f"{draft}/layer")
            lowers = builder.tree(self.built.layers).lowers
            try:
                host = options.host() if options.host else None
                upper = running.run(
                    step, lowers, draft, mounts, options.volumes, host, network, builder.running, output
                )
            finally:
                mounts.close()
            return builder.layer_of(upper), builder.now()

        begin(key)
        return builder.result(key, do)

    def _copy(self, step: Copy, begin: Callable[[str], None]) -> Result:
        builder, epoch = self._builder, self._builder.options.epoch
        origin = self._source_of(step.from_) if step.from_ else builder.context
        tree, context = (origin, None) if isinstance(origin, Tree) else (None, origin)
        with Gathered(step, context, tree, builder.home, builder.halt) as gathered:
            owner = self._owner(step, tree is not None)
            key = keys.copy_key(self._below, step, [source.digest for source in gathered.sources], owner, epoch)

            def do(draft: str) -> tuple[Layer | None, int]:
                lowers = builder.tree(() if step.link else self.built.layers).lowers
                wanted = Placing(
                    step, gathered.sources, tree.lowers if tree else (), context is not None, lowers, draft, owner,
                    builder.now(), epoch,
                )  # fmt: skip
                upper = inside.call("corten.build.placing:place", (wanted,), gathered.descriptors)
                return builder.layer_of(upper), builder.now()

            begin(key)
            return builder.result(key, do)

    def _owner(self, step: Copy, from_tree: bool) -> tuple[int, int] | None:
        if not step.chown:
            return None if from_tree else (0, 0)
        return owner_of(self._builder.tree(self.built.layers).lowers, step.chown)

    def _directory(self, step: DirectoryStep, begin: Callable[[str], None]) -> Result:
        builder = self._builder
        owner = (0, 0)
        if step.user not in ("", "0", "root"):
            owner = identity_of(builder.tree(self.built.layers).lowers, step.user, "USER")
        key = keys.directory_key(self._below, step, owner, builder.options.epoch)

        def do(draft: str) -> tuple[Layer | None, int]:
            lowers = builder.tree(self.built.layers).lowers
            arguments = (step, lowers, draft, owner, builder.now())
            upper = inside.call("corten.build.placing:make_directory", arguments)
            return builder.layer_of(upper) if upper else None, builder.now()

        begin(key)
        return builder.result(key, do)


def time_text(seconds: int) -> str:
    """A Unix time as OCI writes it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _short(one: Instruction) -> str:
    """An instruction without its name, as far as a line takes it."""
    words = " ".join(one.text.split()[1:])
    return words if len(words) <= 80 else f"{words[:79]}…"
