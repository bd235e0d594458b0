"""A rebuild with everything cached: `corten build` beside `buildah build`, the same Containerfile and context."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile

from contest import Contestant, Timed, Times, contest

CORTEN, BUILDAH = "corten build, all cached", "buildah build --layers, all cached"

TEXT = """\
FROM scratch AS base
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
ENV PATH=/bin
WORKDIR /app
FROM base AS tools
RUN echo tools > /tools
FROM base
COPY source source
COPY --from=tools /tools /tools
RUN wc -c source/* > sizes
RUN --mount=type=bind,source=source,target=/m ls /m > names
LABEL some=thing
CMD ["sh"]
"""
"""Three stages, seven layers; the context has 200 files of 16 KiB."""


def cached_rebuild(rounds: int) -> tuple[Times, dict[str, str]]:
    """Milliseconds of both builders, in turns; why one could not take part."""
    directory = tempfile.mkdtemp(prefix="corten-bench-build-", dir="/var/tmp")
    try:
        context = f"{directory}/context"
        os.makedirs(f"{context}/source")
        shutil.copy("/usr/bin/busybox", f"{context}/busybox")
        for number in range(200):
            with open(f"{context}/source/file-{number}", "wb") as file:
                file.write(os.urandom(16 << 10))
        with open(f"{context}/Containerfile", "w") as text:
            text.write(TEXT)
        program = os.path.join(os.path.dirname(sys.executable), "corten")
        corten = [program, "build", "--quiet", "--tag", "bench", context]
        buildah = ["buildah", "--root", f"{directory}/root", "--runroot", f"{directory}/run",
                   "--storage-driver", "overlay", "build", "--layers", "--quiet", "--isolation", "chroot",
                   "--network", "host", "--tag", "bench", context]  # fmt: skip
        contestants: list[Contestant] = [
            Timed(CORTEN, corten, {**os.environ, "CORTEN_HOME": f"{directory}/home"}),
            Timed(BUILDAH, buildah, dict(os.environ)),
        ]
        return contest(contestants, rounds)
    finally:
        shutil.rmtree(directory)
