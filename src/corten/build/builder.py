"""A Containerfile, or a chain of instructions, built: stages side by side, steps in order, an image at the end.

Rule 1: a step is looked up by its key before it is carried out; what is cached costs reading the context, no more.
Rule 2: the first failure ends the other stages, too, and what they run; nothing half made is used by anybody.
Rule 3: the same input gives the same digest: times come from the results of steps, or from `epoch`.
"""

from __future__ import annotations

import collections
import concurrent.futures
import os
import threading
import time

from corten.build import evaluate, inside, keys, running
from corten.build.evaluate import CopyStep, DirectoryStep, Done, RunStep, Setting
from corten.build.failures import BuildFailed, Cancelled
from corten.build.gathering import Gathered
from corten.build.lines import ContainerfileError
from corten.build.placing import Placing
from corten.build.progress import Progress
from corten.build.results import Result, Results
from corten.build.run_mounts import RunMounts, Secret
from corten.build.selection import SelectionError
from corten.build.stages import Containerfile, Stage, dependencies, needed
from corten.build.trees import Context, Tree, identity_of, owner_of
from corten.build.views import make_layer
from corten.errors import Error, InvalidInput, NotFound
from corten.images.layers.commit import commit
from corten.images.manifests import own_platform
from corten.images.store.images import Image, Layer, Store
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.build.host_settings import HostSettings
    from corten.build.instructions import Instruction
    from corten.engine.mounts import MountOption
    from corten.images.references import Reference
    from corten.images.registry.watching import Watcher


_LAST = 40  # lines of a failed step that its error keeps


class BuildOptions(Record):
    """How to build. Times are Unix times in seconds."""

    tags: tuple[Reference, ...] = ()
    target: str = ""
    build_args: tuple[tuple[str, str], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    no_cache: bool = False
    secrets: tuple[tuple[str, Secret], ...] = ()
    volumes: tuple[MountOption, ...] = ()
    """Shown to every RUN, and part of no key: what a machine has of its own, such as the configuration of pip."""
    contexts: tuple[tuple[str, Context], ...] = ()
    """Further directories that COPY --from and RUN --mount=from know by name."""
    host: Callable[[], HostSettings] | None = None
    """Gives what of this machine's settings every RUN sees; asked when the first one is carried out."""
    network: str = "host"
    epoch: int | None = None
    """Every time in the image is at most this one, and it was made then (SOURCE_DATE_EPOCH)."""
    pull: str = "missing"
    """Whether images are fetched: always, missing (if they are not in the store) or never."""
    jobs: int = 0
    """Stages that are built at the same time; 0: as many as there are CPUs."""
    packing: str = "gzip"


class Built(Record):
    """A stage that is done. history: as OCI has it; created: the latest of its steps, None before there is one."""

    layers: tuple[Layer, ...]
    config: dict[str, Any]
    history: tuple[dict[str, Any], ...]
    platform: dict[str, str]
    created: str = ""


class Builder:
    """One build. watch: gives who is told how images are fetched."""

    def __init__(
        self,
        home: str,
        options: BuildOptions,
        context: Context | None,
        progress: Progress,
        watch: Callable[[], Watcher] | None = None,
    ) -> None:
        self.options, self.context, self.progress = options, context, progress
        self.store = Store(home)
        self.home = f"{home}/build"
        self._watch = watch
        self._fetched: dict[str, Image] = {}
        self._fetching = threading.Lock()
        self._results = Results(f"{self.home}/steps", self.store)
        self._running = running.Running()
        self._secrets = dict(options.secrets)
        self._empty = f"{self.home}/empty"

    def build(self, file: Containerfile) -> Image:
        """Build all that the target needs; the image. BuildFailed, ContainerfileError, Error."""
        os.makedirs(self._empty, 0o755, exist_ok=True)
        numbers = needed(file, self.options.target)
        with self.store.using():
            built = self._stages(file, numbers)
            return self._image(built[numbers[-1]])

    # --- stages

    def _stages(self, file: Containerfile, numbers: tuple[int, ...]) -> dict[int, Built]:
        """Build stages, each as soon as those it needs are done."""
        done: dict[int, Built] = {}
        waiting = {number: set(dependencies(file, number)) for number in numbers}
        workers = self.options.jobs or os.cpu_count() or 1
        futures: dict[concurrent.futures.Future[Built], int] = {}
        pool = concurrent.futures.ThreadPoolExecutor(max(1, min(workers, len(numbers))), "corten-build")
        try:
            while len(done) < len(numbers):
                for number in [one for one, needs in waiting.items() if needs <= done.keys()]:
                    del waiting[number]
                    futures[pool.submit(self._stage, file, file.stages[number], done)] = number
                finished, _ = concurrent.futures.wait(futures, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in finished:
                    done[futures.pop(future)] = future.result()
        except BaseException:
            self._running.cancel()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return done

    def _stage(self, file: Containerfile, stage: Stage, done: dict[int, Built]) -> Built:
        base = self._base(file, stage, done)
        setting = Setting(file.name, file.escape, self.options.build_args, (*_platforms(), *file.global_args))
        steps = evaluate.evaluate(stage.instructions, base.config, setting, stage.begin.line)
        worker = _StageWorker(self, file, stage, base, done)
        for number, one in enumerate(steps, 1):
            if self._running.cancelled:
                raise Cancelled
            worker.do(one, number, len(steps))
        return worker.built

    def _base(self, file: Containerfile, stage: Stage, done: dict[int, Built]) -> Built:
        if stage.base.lower() == "scratch":
            return Built((), {}, (), dict(_own_platform()))
        number = file.find(stage.base, stage.number)
        if number is not None:
            return done[number]
        try:
            return built_of(self.find_image(stage.base))
        except Error as error:
            raise BuildFailed(file.name, stage.begin.line, stage.begin.word, str(error)) from None

    def find_image(self, text: str) -> Image:
        """An image by its name. NotFound, InvalidInput."""
        with self._fetching:  # so that stages on the same image fetch it once
            found = self._fetched.get(text)
            if found is None:
                found = self._fetched[text] = self._look_for(text)
            return found

    def _look_for(self, text: str) -> Image:
        found = self.store.find(text) if self.options.pull != "always" else None
        if found is not None:
            return found
        if self.options.pull == "never":
            raise NotFound(f"image {text!r}: is not in the store: leave --pull never out")
        from corten.images.registry.pulling import pull
        from corten.images.registry.watching import SILENT

        record = pull(self.store, text, "", self._watch() if self._watch else SILENT)
        return self.store.image(record.manifest.digest)

    def tree(self, layers: tuple[Layer, ...]) -> Tree:
        """Layers as directories; those that are not unpacked yet are."""
        from corten.images.layers.unpacking import ensure

        # An overlay refuses the same directory twice; the lower of two equal layers shows nothing of its own.
        lowers = tuple(dict.fromkeys(ensure(self.store, layer) for layer in reversed(layers)))
        return Tree(lowers or (self._empty,), tuple(layer.diff_id for layer in layers))

    # --- the image

    def _image(self, built: Built) -> Image:
        config = dict(built.config)
        if self.options.labels:
            config["Labels"] = {**(config.get("Labels") or {}), **dict(self.options.labels)}
        created = _time(self.options.epoch) if self.options.epoch is not None else built.created
        whole: dict[str, Any] = {
            **({"created": created} if created else {}),
            **built.platform,
            "config": config,
            "history": list(built.history),
        }
        return self.store.make_image(whole, built.layers, self.options.tags)

    # --- steps

    def result(self, key: str, do: Callable[[str], tuple[Layer | None, int]]) -> Result:
        """The result of a step."""
        return self._results.make(key, do, "a layer of the build", self.options.no_cache)

    def cached(self, key: str) -> bool:
        """Whether a step will cost nothing."""
        return not self.options.no_cache and self._results.find(key) is not None

    def layer_of(self, upper: str) -> Layer:
        """A directory of changes made a layer."""
        return commit(self.store, upper, packing=self.options.packing, epoch=self.options.epoch)

    def now(self) -> int:
        """The Unix time that things are made at, s."""
        return self.options.epoch if self.options.epoch is not None else int(time.time())


class _StageWorker:
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
            elif isinstance(step, CopyStep):
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
            created = max(created, _time(result.created if epoch is None else min(result.created, epoch)))
        layer = result.layer if result is not None else None
        entry: dict[str, Any] = {"created_by": " ".join(one.instruction.text.split())}
        if created:
            entry["created"] = created
        if layer is None:
            entry["empty_layer"] = True
        layers = (*built.layers, layer) if layer is not None else built.layers
        self.built = built.replace(
            layers=layers, config=one.config, history=(*built.history, entry), created=created
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
            step.mounts, builder.context, self._source_of, builder._secrets, f"{builder.home}/caches"
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
                    step, lowers, draft, mounts, options.volumes, host, network, builder._running, output
                )
            finally:
                mounts.close()
            return builder.layer_of(upper), builder.now()

        begin(key)
        return builder.result(key, do)

    def _copy(self, step: CopyStep, begin: Callable[[str], None]) -> Result:
        builder, epoch = self._builder, self._builder.options.epoch
        origin = self._source_of(step.from_) if step.from_ else builder.context
        tree, context = (origin, None) if isinstance(origin, Tree) else (None, origin)
        with Gathered(step, context, tree, builder.home) as gathered:
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

    def _owner(self, step: CopyStep, from_tree: bool) -> tuple[int, int] | None:
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


def built_of(image: Image) -> Built:
    """An image as what a stage stands on."""
    raw = image.config.raw
    platform = {key: str(raw[key]) for key in ("architecture", "os", "variant") if raw.get(key)}
    return Built(
        image.layers, dict(raw.get("config") or {}), tuple(raw.get("history") or ()), platform, raw.get("created") or ""
    )


def _own_platform() -> tuple[tuple[str, str], ...]:
    own = own_platform()
    found = (("architecture", own.architecture), ("os", own.os))
    return (*found, ("variant", own.variant)) if own.variant else found


def _platforms() -> tuple[tuple[str, str], ...]:
    from corten.build.stages import platform_args

    return tuple(platform_args(os.uname().machine).items())


def _time(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


def _short(one: Instruction) -> str:
    """An instruction without its name, as far as a line takes it."""
    words = " ".join(one.text.split()[1:])
    return words if len(words) <= 80 else f"{words[:79]}…"
