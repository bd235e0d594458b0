"""`corten build`: each instruction in a real build, the cache, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import tarfile
from pathlib import Path

import pytest

from builds.conftest import BASE
from builds.trees import ours, read
from corten.images.store.images import Image, Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Build = Callable[..., Image]
    Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def build(home: Path, context: Path, command: Command) -> Build:
    """Build the context by the text of a Containerfile; the image. The lines it said are in `said`."""

    def run(text: str, *words: str, name: str = "Containerfile") -> Image:
        (context / name).write_text(text)
        done = command("build", "-f", str(context / name), *words, str(context))
        assert done.returncode == 0, done.stderr
        said[:] = done.stderr.splitlines()
        digest = done.stdout.strip()
        image = Store(str(home)).find(digest)
        assert image is not None
        return image

    return run


said: list[str] = []


def carried_out() -> list[str]:
    """The steps of the last build that were not found in the cache."""
    return [line for line in said if line.startswith("[") and not line.endswith("(cached)")]


@pytest.fixture
def refused(context: Path, command: Command) -> Callable[..., str]:
    """How a build ends that cannot be: its one line of error."""

    def run(text: str, *words: str) -> str:
        (context / "Containerfile").write_text(text)
        done = command("build", "--pull", "never", "-f", "Containerfile", *words, ".", cwd=str(context))
        assert done.returncode == 125, done
        assert done.stdout == ""
        lines = [line for line in done.stderr.splitlines() if line.startswith("corten: ")]
        assert done.stderr.splitlines()[-1:] == lines, done.stderr
        return lines[0].removeprefix("corten: ")

    return run


def test_run_and_configuration(build: Build, home: Path) -> None:
    image = build(
        BASE + 'ARG WHO=me\nENV GREET="hi $WHO"\nWORKDIR /work\nRUN echo "$GREET $WHO" > f && touch /root-made\n'
        'USER 1000:1000\nRUN ["sh", "-c", "id -u; id -g"]\nCMD ["sh"]\nLABEL a=b\n',
        "--build-arg", "WHO=you",
    )  # fmt: skip
    assert read(home, image, "work/f") == "hi you you\n"
    assert said.count("1000") == 2
    assert image.config.raw["config"] == {
        "Env": ["GREET=hi you"], "WorkingDir": "/work", "User": "1000:1000", "Cmd": ["sh"], "Labels": {"a": "b"},
    }  # fmt: skip
    history = image.config.raw["history"]
    assert [entry.get("empty_layer", False) for entry in history].count(False) == len(image.layers)
    assert history[1]["created_by"].startswith("RUN [")


def test_mounts_leave_nothing_in_the_image(build: Build, home: Path) -> None:
    image = build(BASE + "RUN --mount=type=tmpfs,target=/t/u --mount=type=cache,target=/c true\n")
    assert {path for path in ours(home, image) if not path.startswith("/bin/")} == {"/bin"}


def test_a_cached_build_does_nothing_and_gives_the_same(build: Build, context: Path) -> None:
    (context / "f").write_text("1")
    text = BASE + "COPY f /f\nRUN cat /f > /g\nLABEL x=1\n"
    first = build(text)
    assert build(text).digest == first.digest
    assert carried_out() == ["[base 5/5] LABEL x=1"]
    os.utime(context / "f", (1, 1))  # another time is no other file
    assert build(text).digest == first.digest
    (context / "f").write_text("2")
    assert build(text).digest != first.digest
    assert carried_out() == ["[base 3/5] COPY f /f", "[base 4/5] RUN cat /f > /g", "[base 5/5] LABEL x=1"]


def test_labels_and_names_of_stages_break_no_cache(build: Build) -> None:
    first = build(BASE + "RUN echo 1 > /one\n")
    second = build(BASE.replace("AS base", "AS other") + "LABEL a=b\nRUN echo 1 > /one\n")
    assert [layer.diff_id for layer in first.layers] == [layer.diff_id for layer in second.layers]


def test_the_same_input_gives_the_same_digest_anew(build: Build, context: Path) -> None:
    (context / "d").mkdir()
    (context / "d/f").write_text("x")
    text = "FROM scratch\nCOPY d /deep/er/\nCOPY <<F /w\nx\nF\nWORKDIR /v\n"
    words = ("--no-cache", "--timestamp", "1700000000")
    assert build(text, *words).digest == build(text, *words).digest


def test_stages(build: Build, home: Path) -> None:
    image = build(
        BASE + "FROM base AS one\nRUN echo 1 > /one\nFROM base AS broken\nRUN false\n"
        "FROM base AS two\nRUN echo 2 > /two\n"
        "FROM scratch\nCOPY --from=one /one /\nCOPY --from=0 /bin/busybox /b\nCOPY --from=two /two /\n"
    )
    assert set(ours(home, image)) == {"/one", "/two", "/b"}
    assert not any("broken" in line for line in said)


def test_target_and_from_image(build: Build, home: Path) -> None:
    text = BASE + "RUN echo b > /b\nENV A=1\nONBUILD RUN echo $A > /triggered\nFROM base\nRUN echo no > /no\n"
    base = build(text, "-t", "tests/base:1", "--target", "base")
    assert "/no" not in ours(home, base)
    image = build("ARG TAG\nFROM tests/base:$TAG\nCOPY --from=tests/base:1 /b /c\n", "--build-arg", "TAG=1")
    assert read(home, image, "triggered") == "1\n"
    assert read(home, image, "c") == "b\n"


def test_run_mounts(build: Build, home: Path, context: Path, tmp_path: Path) -> None:
    (context / "f").write_text("of the context\n")
    secret = tmp_path / "secret"
    secret.write_text("hush\n")
    text = BASE + (
        "FROM base\nRUN --mount=type=cache,id=k,target=/cache echo kept > /cache/k\n"
        "RUN --mount=type=cache,id=k,target=/elsewhere cp /elsewhere/k /k\n"
        "RUN --mount=target=/m,source=f cp /m /m-copy; ! echo x > /m\n"
        "RUN --mount=from=base,source=/bin,target=/theirs /theirs/busybox ls /theirs | grep -c busybox > /count\n"
        "RUN --mount=type=secret,id=s cp /run/secrets/s /told; stat -c %a /run/secrets/s > /mode\n"
        "RUN --mount=type=secret,id=s,env=S echo $S > /env\n"
        "RUN --mount=type=tmpfs,target=/t,size=1m ! dd if=/dev/zero of=/t/x bs=2M count=1 2>/dev/null\n"
    )
    image = build(text, "--secret", f"id=s,src={secret}")
    assert read(home, image, "k") == "kept\n"
    assert read(home, image, "m-copy") == "of the context\n"
    assert read(home, image, "count") == "1\n"
    assert read(home, image, "told") == read(home, image, "env") == "hush\n"
    assert read(home, image, "mode") == "400\n"
    assert not {"/cache", "/elsewhere", "/m", "/theirs", "/run", "/t"} & set(ours(home, image))
    assert "hush" not in json.dumps(image.config.raw)


def test_here_documents(build: Build, home: Path) -> None:
    image = build(
        BASE + "ENV A=1\nRUN <<E\nset -e\necho $A > /s\nE\nRUN <<E\n#!/bin/cat\nE\n"
        "RUN <<E\n#!/bin/sh\necho $0 > /a\nE\n"
        "RUN cat <<E > /c\nx $A\nE\nCOPY <<one <<'two' /d/\n$A \"q\"\none\n$A\ntwo\n"
    )
    assert [read(home, image, path) for path in ("s", "a", "c", "d/one", "d/two")] == [
        "1\n", "/dev/corten-script\n", "x 1\n", '1 "q"\n', "$A\n",
    ]  # fmt: skip


def test_ignored_files_do_not_exist(build: Build, home: Path, context: Path) -> None:
    (context / "keep").mkdir()
    (context / "keep/a.txt").write_text("a")
    (context / "keep/b.log").write_text("b")
    (context / "drop").mkdir()
    (context / "drop/c").write_text("c")
    (context / "drop/d").write_text("d")
    (context / ".dockerignore").write_text("**/*.log\ndrop\n!drop/d\nContainerfile\nbusybox\n.dockerignore\n")
    image = build("FROM scratch\nCOPY . /\n")
    assert set(ours(home, image)) == {"/keep", "/keep/a.txt", "/drop", "/drop/d"}


def test_add_unpacks_archives(build: Build, home: Path, context: Path) -> None:
    (context / "passwd").write_text("x" * 10000)
    for kind in ("", "gz", "bz2", "xz"):
        with tarfile.open(context / f"a.tar.{kind}", f"w:{kind}") as archive:  # type: ignore[call-overload]
            archive.add(context / "passwd", f"in-{kind or 'plain'}")
    (context / "notes.txt").write_text("no archive")
    image = build(
        "FROM scratch\nADD a.tar. a.tar.gz a.tar.bz2 a.tar.xz notes.txt /x/\nADD --unpack=false a.tar.gz /kept\n"
    )
    assert set(ours(home, image)) == {
        "/x", "/x/in-plain", "/x/in-gz", "/x/in-bz2", "/x/in-xz", "/x/notes.txt", "/kept",
    }  # fmt: skip


def test_links_in_the_image_do_not_lead_out(build: Build, home: Path, context: Path, tmp_path: Path) -> None:
    (context / "f").write_text("x")
    links = f"RUN ln -s {tmp_path} /out && ln -s /inside /in && mkdir /inside\n"
    image = build(f"{BASE}{links}COPY f /out/\nCOPY f /in/\n")
    assert not (tmp_path / "f").exists()
    assert {f"{tmp_path}/f", "/inside/f"} <= set(ours(home, image))


def test_links_in_the_context_do_not_lead_out(refused: Callable[..., str], context: Path) -> None:
    (context / "out").symlink_to("/etc/hostname")
    assert refused("FROM scratch\n\nCOPY out /x\n") == "Containerfile:3: COPY: out: no such file or directory"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM scratch\nRNU x\n", "Containerfile:2: RNU: unknown instruction: did you mean RUN?"),
        ("FROM --platform=linux/s390x scratch\n", "Containerfile:1: FROM: --platform=linux/s390x: only this machine's"),
        ("FROM --platform=linux/a/b/c scratch\n", "Containerfile:1: FROM: --platform: 'linux/a/b/c' is not OS/"),
        ("FROM nothing/there:1\n", "Containerfile:1: FROM: image "),
        ("FROM scratch\nCOPY missing /x\n", "Containerfile:2: COPY: missing: no such file or directory"),
        ("FROM scratch\nCOPY *.none /x/\n", "Containerfile:2: COPY: *.none: nothing matches"),
        ("FROM scratch\nCOPY *.none none* /x/\n", "Containerfile:2: COPY: *.none: nothing matches"),
        (BASE + "FROM scratch\nCOPY --from=base /none* /x/\n", "Containerfile:5: COPY: /none*: nothing matches"),
        ("FROM scratch\nCOPY --chown=bob busybox /x\n", "Containerfile:2: COPY: --chown: there is no user 'bob'"),
        ("FROM scratch\nCOPY --from=nothing/there /a /x\n", "Containerfile:2: COPY: image "),
        (BASE + "RUN echo out; exit 3\n", "Containerfile:4: RUN: echo out; exit 3: exited with code 3"),
        (BASE + 'RUN ["/none"]\n', "Containerfile:4: RUN: "),
        (BASE + "USER bob\nRUN true\n", "Containerfile:5: RUN: --user: there is no user 'bob'"),
        (BASE + "COPY busybox /bin\nCOPY busybox /f\nCOPY busybox /f/\n", "Containerfile:6: COPY: /f"),
        (BASE + "RUN --mount=type=secret,id=s,required true\n", "Containerfile:4: RUN: secret s: was not given"),
        (BASE + "RUN --mount=source=none,target=/x true\n", "Containerfile:4: RUN: none: no such file or directory"),
        ("FROM scratch\nADD --checksum=sha256:00 busybox /x\n", "Containerfile:2: ADD: busybox: has the digest"),
        ("FROM scratch\nADD http://127.0.0.1:9/x /x\n", "Containerfile:2: ADD: http://127.0.0.1:9/x: cannot"),
    ],
)
def test_errors_have_file_line_and_instruction(refused: Callable[..., str], text: str, message: str) -> None:
    assert refused(text).startswith(message)


def test_a_failing_stage_ends_the_others(refused: Callable[..., str]) -> None:
    text = BASE + (
        "FROM base AS slow\nRUN sleep 1000\nFROM base AS bad\nRUN exit 4\n"
        "FROM base\nCOPY --from=slow /bin /x\nCOPY --from=bad /bin /y\n"
    )
    assert refused(text, "--jobs", "2") == "Containerfile:7: RUN: exit 4: exited with code 4"


def test_wrong_words(command: Command, context: Path) -> None:
    for words, message in (
        (("build",), "build needs a context directory"),
        (("build", str(context)), "has no Containerfile and no Dockerfile"),
        (("build", "/nowhere"), "/nowhere: no such directory"),
        (("build", "-f", "/nowhere", str(context)), "/nowhere: no such file"),
        (("build", "--secret", "id=x", str(context)), "says not where it is"),
        (("build", "--ssh", "x", str(context)), "--ssh: forwarding"),
        (("build", "--build-arg", "=x", str(context)), "has no name"),
    ):
        done = command(*words)
        assert (done.returncode, done.stdout) == (125, "")
        assert message in done.stderr
        assert done.stderr.count("\n") == 1


def test_a_bind_of_a_link_stays_in_the_context(build: Build, home: Path, context: Path) -> None:
    (context / "etc").mkdir()
    (context / "etc/own").write_text("own\n")
    (context / "link").symlink_to("/etc")
    image = build(BASE + "RUN --mount=source=link,target=/m ls /m > /names\n")
    assert read(home, image, "names") == "own\n"


def test_a_bind_of_a_stage_shows_what_its_layers_come_to(build: Build, home: Path) -> None:
    image = build(
        BASE + "RUN mkdir -p /d/a /d/b && echo 1 > /d/a/one && echo 1 > /d/b/gone && ln -s /elsewhere /d/turned\n"
        "RUN rm -r /d/b && mkdir /d/b && echo 2 > /d/b/two && rm /d/turned && mkdir /d/turned && echo 2 > /d/turned/t\n"
        "RUN rm /d/a/one && ln -s /d/b /s\nFROM base AS last\n"
        "RUN --mount=from=base,source=/d,target=/m cd /m && find | sort > /all\n"
        "RUN --mount=from=base,source=/s,target=/m ls /m > /linked; ! echo x > /m/new\n"
        "RUN --mount=from=base,source=/d/b/two,target=/m cat /m > /file\n"
        "RUN --mount=from=base,source=/d/turned,target=/m ls /m > /turned\n"
    )
    assert read(home, image, "all").split() == [".", "./a", "./b", "./b/two", "./turned", "./turned/t"]
    assert read(home, image, "linked") == "two\n"
    assert read(home, image, "file") == "2\n"
    assert read(home, image, "turned") == "t\n"


def test_binds_are_read_only_and_what_rw_writes_is_thrown_away(build: Build, home: Path, context: Path) -> None:
    """Of a stage, of one and of several layers, and of the context; directories and files."""
    (context / "sub").mkdir()
    (context / "sub/f").write_text("as it was\n")
    places = ("from=one,source=/d", "from=two,source=/d", "from=one,source=/d/f", "from=two,source=/d/f",
              "source=sub", "source=sub/f")  # fmt: skip
    text = BASE + (
        "FROM scratch AS one\nCOPY sub /d/\nFROM one AS two\nCOPY sub/f /d/g\nCOPY sub/f /d/f\nFROM base\n"
        "RUN printf '%s\\n' 'test -d /m && f=/m/f || f=/m' 'cat $f >> /out'"
        " 'echo new > $f' 'test ! -d /m || touch /m/more' > /try\n"
    )
    for place in places:
        text += f"RUN --mount={place},target=/m ! sh -e /try 2>> /refused\n"
        text += f"RUN --mount={place},target=/m,rw sh -e /try\n"
    text += "RUN --mount=from=two,source=/d,target=/m cat /m/f /m/g >> /out; ls /m >> /out\n"
    image = build(text)
    assert read(home, image, "out").split("\n") == ["as it was"] * (2 * len(places) + 2) + ["f", "g", ""]
    assert read(home, image, "refused").count("can't create") == len(places)
    assert (context / "sub/f").read_text() == "as it was\n"
    assert os.listdir(context / "sub") == ["f"]


def test_a_pattern_that_matches_nothing_beside_something(build: Build, home: Path, context: Path) -> None:
    """What may be missing is written as a pattern, as people do: `COPY package.json yarn.lock* ./`."""
    (context / "there").write_text("x")
    image = build(
        "FROM scratch AS one\nCOPY there none* /a/\nCOPY none*.lock <<F /a/\nF\nFROM scratch\n"
        "COPY --from=one /none* /a/t* /b/\n"
    )
    assert set(ours(home, image)) == {"/b", "/b/there"}


def test_parents_exclude_and_further_contexts(build: Build, home: Path, context: Path, tmp_path: Path) -> None:
    for name in ("a/b/c", "a/b/d.o", "a/e/f.o", "a/e/g"):
        path = context / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    other = tmp_path / "other"
    other.mkdir()
    (other / "x").write_text("other")
    text = (
        "FROM scratch\nCOPY --parents a/b/c a/e /kept/\nCOPY --exclude=**/*.o a /all/\nCOPY --from=more x /\n"
        "COPY --link a/b/c /linked/c\n"
    )
    image = build(text, "--build-context", f"more={other}")
    files = {path for path, row in ours(home, image).items() if row[0][0] == "-"}
    assert files == {
        "/kept/a/b/c", "/kept/a/e/f.o", "/kept/a/e/g", "/all/b/c", "/all/e/g", "/x", "/linked/c",
    }  # fmt: skip


def test_an_argument_that_nobody_takes_is_told(build: Build) -> None:
    build("FROM scratch\nCOPY <<F /f\nx\nF\n", "--build-arg", "TYPO=1", "--build-arg", "HTTP_PROXY=x")
    assert said[0] == "warning: --build-arg TYPO: no ARG takes it"
    assert len(said) == 2


def test_the_containerfiles_own_ignore_file_comes_first(build: Build, home: Path, context: Path) -> None:
    (context / "f").write_text("f")
    (context / ".dockerignore").write_text("f\n")
    (context / "Special.dockerignore").write_text("busybox\nSpecial*\n.dockerignore\n")
    image = build("FROM scratch\nCOPY . /\n", name="Special")
    assert set(ours(home, image)) == {"/f"}


def test_independent_stages_are_built_at_the_same_time(build: Build, home: Path) -> None:
    """Each of two stages waits for the other: one after the other they would never end."""
    wait = "RUN --mount=type=cache,id=m,target=/c touch /c/{0}; until [ -e /c/{1} ]; do usleep 9; done; touch /{0}\n"
    image = build(
        f"{BASE}FROM base AS a\n{wait.format('a', 'b')}FROM base AS b\n{wait.format('b', 'a')}"
        "FROM scratch\nCOPY --from=a /a /\nCOPY --from=b /b /\n",
        "--jobs", "2",
    )  # fmt: skip
    assert set(ours(home, image)) == {"/a", "/b"}


def test_a_containerfile_from_standard_input(context: Path, command: Command, home: Path) -> None:
    done = command("build", "-q", "-f", "-", str(context), stdin=None, input="FROM scratch\nCOPY busybox /b\n")
    assert done.returncode == 0, done.stderr
    wrong = command("build", "-q", "-f", "-", str(context), stdin=None, input="FROM scratch\nCPY a b\n")
    assert wrong.stderr == "corten: standard input:2: CPY: unknown instruction: did you mean COPY?\n"


def test_names_of_the_network_are_copies(build: Build, home: Path) -> None:
    before = Path("/etc/hosts").read_text()
    image = build(BASE + "RUN cp /etc/hosts /seen && echo 127.0.0.1 x >> /etc/hosts && cp /etc/resolv.conf /resolver\n")
    assert read(home, image, "seen") == before == Path("/etc/hosts").read_text()
    assert read(home, image, "resolver") == Path("/etc/resolv.conf").read_text()
    assert "/etc" not in ours(home, image)
