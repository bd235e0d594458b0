"""Stages: which are needed, what they stand on, and what their instructions come to."""

from __future__ import annotations

import pytest

from corten.build.evaluate import DirectoryStep, Done, RunStep, Setting, evaluate
from corten.build.instructions import Copy
from corten.build.lines import ContainerfileError
from corten.build.parse import parse
from corten.build.stages import Containerfile, dependencies, needed, platform_args, read_stages
from corten.errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def anywhere(step: Any) -> Copy:
    """A copy without where it is written."""
    assert isinstance(step, Copy)
    return step.replace(line=0, text="")


def stages(text: str, **given: str) -> Containerfile:
    return read_stages(*parse(text), given, platform_args("x86_64"))


def done(
    text: str, base: dict[str, Any] | None = None, global_args: tuple[tuple[str, str], ...] = (), **given: str
) -> list[Done]:
    instructions = parse(text)[1]
    return list(evaluate(instructions, base or {}, Setting("C", "\\", tuple(given.items()), global_args)))


def test_only_what_the_target_needs() -> None:
    file = stages(
        "FROM a AS one\nFROM one AS two\nFROM b\nCOPY --from=one /x /y\nFROM scratch AS last\n"
        "RUN --mount=from=2,target=/m true\nCOPY --from=debian /a /b\n"
    )
    assert needed(file) == (0, 2, 3)
    assert needed(file, "TWO") == (0, 1)
    assert needed(file, "0") == (0,)
    assert dependencies(file, 3) == (2,)
    with pytest.raises(InvalidInput, match="--target x: Containerfile has no such stage: there are one, two, 2, last"):
        needed(file, "x")


def test_a_stage_may_be_called_like_its_image() -> None:
    file = stages("FROM debian AS debian\nFROM debian\n")
    assert dependencies(file, 0) == ()
    assert dependencies(file, 1) == (0,)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN x\nFROM a\n", "Containerfile:1: RUN: comes before the first FROM"),
        ("# nothing\n", "Containerfile: has no FROM"),
        ("FROM $X\n", r"Containerfile:1: FROM: \$X is empty"),
        ("FROM a AS b\nFROM c AS b\n", "Containerfile:2: FROM: there is a stage b already"),
        ("FROM ${X\n", "Containerfile:1: FROM: .*not closed"),
    ],
)
def test_wrong_files(text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        stages(text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a AS one\nCOPY --from=one /x /y\n", "Containerfile:2: COPY: from=one is this very stage"),
        ("FROM a\nCOPY --from=two /x /y\nFROM b AS two\n", "Containerfile:2: COPY: from=two is a later stage"),
        ("FROM a\nCOPY --from=7 /x /y\n", "Containerfile:2: COPY: from=7: there is no stage 7"),
    ],
)
def test_wrong_references(text: str, message: str) -> None:
    with pytest.raises(ContainerfileError, match=message):
        dependencies(stages(text), 0)


def test_global_arguments() -> None:
    file = stages("ARG V=bookworm\nARG I=debian:${V}\nFROM --platform=$BUILDPLATFORM $I\n", V="trixie")
    assert (file.stages[0].base, file.stages[0].platform) == ("debian:trixie", "linux/amd64")
    assert dict(file.global_args) == {"V": "trixie", "I": "debian:trixie"}


def run_env(found: list[Done]) -> dict[str, str]:
    step = found[-1].step
    assert isinstance(step, RunStep)
    return dict(step.env)


def test_scopes_of_arguments() -> None:
    scope = (("G", "global"),)
    assert run_env(done("RUN x", {}, scope)) == {}
    assert run_env(done("ARG G\nRUN x", {}, scope)) == {"G": "global"}
    assert run_env(done("ARG G=own\nRUN x", {}, scope)) == {"G": "own"}
    assert run_env(done("ARG G=own\nRUN x", {}, scope, G="given")) == {"G": "given"}
    assert run_env(done("ARG A=1\nENV A=2\nARG A=3\nRUN x", A="4")) == {"A": "2"}
    assert run_env(done("ENV B=${A:-none}\nARG A=1\nRUN x")) == {"B": "none", "A": "1"}
    assert run_env(done("ENV a=1\nENV a=2 b=$a\nRUN x")) == {"a": "2", "b": "1"}
    assert run_env(done("RUN x", {}, (), HTTP_PROXY="p")) == {}
    step = done("RUN x", {}, (), HTTP_PROXY="p")[0].step
    assert isinstance(step, RunStep)
    assert step.proxies == (("HTTP_PROXY", "p"),)


def test_run_forms() -> None:
    text = 'RUN a $B\nRUN ["x", "$y"]\nSHELL ["/bin/bash", "-ec"]\nRUN a\n'
    text += 'RUN <<E\n b\nE\nRUN <<E\n#!/bin/x\nc\nE\nRUN cat <<E -\nd\nE\n'
    found = [one.step for one in done(text) if one.step]
    assert [(step.argv, step.script) for step in found if isinstance(step, RunStep)] == [
        (("/bin/sh", "-c", "a $B"), ""),
        (("x", "$y"), ""),
        (("/bin/bash", "-ec", "a"), ""),
        (("/bin/bash", "-ec", " b\n"), ""),
        ((), "#!/bin/x\nc\n"),
        (("/bin/bash", "-ec", "cat <<E -\nd\nE"), ""),
    ]


def test_copies() -> None:
    text = "WORKDIR /w\nWORKDIR sub\nARG O=7\nCOPY --chown=$O:x a b c/\n"
    text += "COPY <<F <<'G' /x/\n$O\"'\\$\nF\n$O\nG\nCOPY . .\n"
    found = [one.step for one in done(text)]
    assert found[0] == DirectoryStep("/w", "")
    assert found[1] == DirectoryStep("/w/sub", "")
    assert anywhere(found[3]) == Copy(0, "", ("a", "b"), "/w/sub/c/", chown="7:x")
    assert anywhere(found[4]).replace(heredocs=()) == Copy(0, "", (), "/x/")
    written = anywhere(found[4]).heredocs
    assert [(doc.name, doc.content) for doc in written] == [("F", "7\"'$\n"), ("G", "$O\n")]
    assert anywhere(found[5]) == Copy(0, "", (".",), "/w/sub/")


def test_configuration() -> None:
    text = (
        "ENV A=1\nLABEL l=$A\nEXPOSE 80 90-91/udp $A\nVOLUME /v$A\nUSER u$A\nSTOPSIGNAL SIGTERM\nCMD a b\n"
        "ENTRYPOINT [\"e\"]\n"
        "HEALTHCHECK --interval=1m30s --retries=2 CMD x\nONBUILD RUN y\nMAINTAINER me\n"
    )
    assert done(text, {"Env": ["PATH=/bin", "A=0"], "Labels": {"k": "v"}})[-1].config == {
        "Env": ["PATH=/bin", "A=1"],
        "Labels": {"k": "v", "l": "1"},
        "ExposedPorts": {"80/tcp": {}, "90/udp": {}, "91/udp": {}, "1/tcp": {}},
        "Volumes": {"/v1": {}},
        "User": "u1",
        "StopSignal": "SIGTERM",
        "Cmd": ["/bin/sh", "-c", "a b"],
        "Entrypoint": ["e"],
        "Healthcheck": {"Test": ["CMD-SHELL", "x"], "Interval": 90 * 10**9, "Retries": 2},
        "OnBuild": ["RUN y"],
    }


def test_an_entrypoint_takes_the_command_of_the_base_away() -> None:
    assert done('ENTRYPOINT ["e"]', {"Cmd": ["old"]})[-1].config == {"Entrypoint": ["e"]}
    assert done('CMD ["c"]\nENTRYPOINT ["e"]', {"Cmd": ["old"]})[-1].config == {"Cmd": ["c"], "Entrypoint": ["e"]}


def test_triggers_of_the_base_come_first() -> None:
    found = done("RUN own", {"OnBuild": ["RUN theirs", "ENV A=1"]})
    assert [one.instruction.text for one in found] == ["RUN theirs", "ENV A=1", "RUN own"]
    assert found[-1].config == {"Env": ["A=1"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("RUN a\nCOPY a b /c\n", "C:2: COPY: several sources need a directory as target: end it with a slash: /c/"),
        ("COPY $A /c\n", r"C:1: COPY: the source \$A is empty"),
        ("COPY a $A\n", r"the target \$A is empty"),
        ("COPY --chmod=u+x a b\n", "--chmod=u.x: is no mode in octal"),
        ("EXPOSE 99999\n", "99999: is no port"),
        ("EXPOSE 80/icmp\n", "80/icmp: is no port"),
        ("USER $A\n", r"the user \$A is empty"),
        ("WORKDIR $A\n", r"the path \$A is empty"),
        ("STOPSIGNAL NOPE\n", "C:1: STOPSIGNAL: .*NOPE"),
        ("ENV A=\"${B?set it}\"\n", "C:1: ENV: B: set it"),
        ("LABEL A='x\n", "C:1: LABEL: a single quote is not closed"),
        ("RUN --mount=type=cache,target=/,id=x y\n", "nothing can be mounted on the root"),
        ("RUN --mount=type=cache,target=/x,mode=rw y\n", "mode=rw: is no number"),
    ],
)
def test_errors_have_file_line_and_instruction(text: str, message: str) -> None:
    with pytest.raises(ContainerfileError, match=message):
        done(text)
