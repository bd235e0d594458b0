"""A Containerfile, or a chain of instructions, built: stages side by side, steps in order, an image at the end.

Rule 1: a step is looked up by its key before it is carried out; what is cached costs reading the context, no more.
Rule 2: the first failure ends the other stages, too, and what they run; nothing half made is used by anybody.
Rule 3: the same input gives the same digest: times come from the results of steps, or from `epoch`.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
import time

from corten.build import evaluate, running
from corten.build.evaluate import Setting
from corten.build.failures import BuildFailed, Cancelled
from corten.build.lines import ContainerfileError
from corten.build.progress import Progress
from corten.build.results import Result, Results
from corten.build.run_mounts import Secret
from corten.build.stage_worker import Built, StageWorker, time_text
from corten.build.stages import Containerfile, Stage, dependencies, needed, platform_args
from corten.build.trees import Context, Tree
from corten.errors import Error, InvalidInput, NotFound
from corten.images.layers.commit import commit
from corten.images.manifests import Platform, own_platform, parse_platform
from corten.images.registry.halt import Halt
from corten.images.store.images import Image, Layer, Store
from corten.records import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from corten.build.host_settings import HostSettings
    from corten.engine.mounts import MountOption
    from corten.images.references import Reference
    from corten.images.registry.watching import Watcher


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
        self.halt = Halt()
        self._results = Results(f"{self.home}/steps", self.store)
        self.running = running.Running()
        self.secrets = dict(options.secrets)
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
            self.running.cancel()
            self.halt.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)
        return done

    def _stage(self, file: Containerfile, stage: Stage, done: dict[int, Built]) -> Built:
        base = self._base(file, stage, done)
        setting = Setting(file.name, file.escape, self.options.build_args, (*_platforms(), *file.global_args))
        steps = evaluate.evaluate(stage.instructions, base.config, setting, stage.begin.line)
        worker = StageWorker(self, file, stage, base, done)
        for number, one in enumerate(steps, 1):
            if self.running.cancelled:
                raise Cancelled
            worker.do(one, number, len(steps))
        return worker.built

    def _base(self, file: Containerfile, stage: Stage, done: dict[int, Built]) -> Built:
        own = own_platform()
        try:
            if stage.platform and not _same(parse_platform(stage.platform), own):
                raise InvalidInput(f"--platform={stage.platform}: only this machine's, {own}, can be built for")
        except InvalidInput as error:
            raise ContainerfileError(file.name, stage.begin.line, stage.begin.word, str(error)) from None
        if stage.base.lower() == "scratch":
            return Built((), {}, (), dict(_own_platform()))
        number = file.find(stage.base, stage.number)
        if number is not None:
            return done[number]
        try:
            image = self.find_image(stage.base)
            if not _same(image.config.platform, own):
                raise InvalidInput(f"image {stage.base!r}: is for {image.config.platform}, and this machine is {own}")
            return built_of(image)
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

        self.progress.beside = self._watch() if self._watch else SILENT
        record = pull(self.store, text, "", self.progress.beside, self.halt)
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
        created = time_text(self.options.epoch) if self.options.epoch is not None else built.created
        whole: dict[str, Any] = {
            **({"created": created} if created else {}),
            **({"author": built.author} if built.author else {}),
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


def _same(one: Platform, other: Platform) -> bool:
    """Whether what is for one platform runs on the other; variants are for the kernel to judge."""
    return (one.os, one.architecture) == (other.os, other.architecture)


def built_of(image: Image) -> Built:
    """An image as what a stage stands on."""
    raw = image.config.raw
    platform = {key: str(raw[key]) for key in ("architecture", "os", "variant") if raw.get(key)}
    return Built(
        image.layers, dict(raw.get("config") or {}), tuple(raw.get("history") or ()), platform,
        str(raw.get("created") or ""), str(raw.get("author") or ""),
    )  # fmt: skip


def _own_platform() -> tuple[tuple[str, str], ...]:
    own = own_platform()
    found = (("architecture", own.architecture), ("os", own.os))
    return (*found, ("variant", own.variant)) if own.variant else found


def _platforms() -> tuple[tuple[str, str], ...]:
    return tuple(platform_args(os.uname().machine).items())
