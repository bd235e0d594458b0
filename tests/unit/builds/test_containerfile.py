"""Containerfiles read: what each instruction becomes, and where an error points."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.build import instructions as i
from corten.build.lines import ContainerfileError, Heredoc, read_lines
from corten.build.parse import parse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from corten.build.instructions import Instruction


def one(text: str) -> Instruction:
    found = parse(text)[1]
    assert len(found) == 1, found
    return found[0]


def test_lines_are_continued_over_comments_and_empty_lines() -> None:
    text = "\ufeff# a comment\nRUN a \\\n  # not this\n\n  b \\  \n c\n\nRUN d\r\nRUN e\\\\\nRUN f \\\n"
    source = read_lines(text, "C")
    assert [(line.number, line.text) for line in source.lines] == [
        (2, "RUN a   b  c"),
        (8, "RUN d"),
        (9, "RUN e\\\\"),
        (10, "RUN f"),
    ]


def test_directives_stand_first() -> None:
    source = read_lines("# syntax=docker/dockerfile:1\n#Escape = `\n# other\nRUN dir `\n c:\\\n", "C")
    assert source.directives == (("syntax", "docker/dockerfile:1"), ("escape", "`"))
    assert source.lines[0].text == "RUN dir  c:\\"
    assert read_lines("\n# escape=`\nRUN a\n", "C").escape == "\\"
    for text, words in (("#escape=x\n", "escape=x"), ("#escape=\\\n#escape=`\n", "twice")):
        with pytest.raises(ContainerfileError, match=words):
            read_lines(text, "C")


def test_from() -> None:
    found = one("from --platform=linux/amd64 debian:bookworm as Base")
    assert found == i.From(1, found.text, "debian:bookworm", "linux/amd64", "base")
    assert found.word == "FROM"


def test_run_forms() -> None:
    shell, listed, broken = parse('RUN a && b\nRUN ["a", "b"]\nRUN ["a", b]\n')[1]
    assert isinstance(shell, i.Run)
    assert shell.command == i.Command(("a && b",), True)
    assert isinstance(listed, i.Run)
    assert listed.command == i.Command(("a", "b"), False)
    assert isinstance(broken, i.Run)
    assert broken.command == i.Command(('["a", b]',), True)


def test_run_mounts() -> None:
    found = one("RUN --mount=type=cache,dst=/c,sharing=locked --mount=src=a,target=/b,ro --network=none make")
    assert isinstance(found, i.Run)
    assert found.mounts == (
        i.RunMount("cache", (("target", "/c"), ("sharing", "locked"))),
        i.RunMount("bind", (("source", "a"), ("target", "/b"), ("readonly", "true"))),
    )
    assert found.network == "none"
    assert found.command.words == ("make",)


def test_heredocs() -> None:
    text = "RUN <<EOF\necho hi\n# kept\nEOF\nRUN cat <<A <<-\"B\" 3<<C\nx $y\nA\n\ttab\n\tB\nC\nRUN echo done\n"
    script, two, after = parse(text)[1]
    assert isinstance(script, i.Run)
    assert script.script
    assert script.heredocs == (Heredoc("EOF", "echo hi\n# kept\n", True, False),)
    assert isinstance(two, i.Run)
    assert not two.script
    assert two.heredocs == (
        Heredoc("A", "x $y\n", True, False),
        Heredoc("B", "\ttab\n", False, True),
        Heredoc("C", "", True, False, "3"),
    )
    assert after.line == 11


def test_heredocs_are_not_seen_where_there_are_none() -> None:
    for text in ('RUN ["cat", "<<EOF"]', "RUN cat <<< x", "ENV a=<<b", "RUN echo '<<EOF'", "RUN echo $((1 << 2))"):
        assert not getattr(one(text), "heredocs", ())


def test_copy_and_add() -> None:
    found = one("COPY --from=b --chown=1:2 --chmod=0644 --link --exclude=*.o --exclude=x a 'b c' /dst/")
    assert isinstance(found, i.Copy)
    assert (found.sources, found.target, found.from_) == (("a", "'b c'"), "/dst/", "b")
    assert (found.chown, found.chmod, found.link, found.exclude) == ("1:2", "0644", True, ("*.o", "x"))
    listed = one('COPY ["a b", "/d"]')
    assert isinstance(listed, i.Copy)
    assert (listed.sources, listed.target) == (("a b",), "/d")
    written = one("COPY <<f.txt a <<'g' /x/\n1\nf.txt\n2\ng\n")
    assert isinstance(written, i.Copy)
    assert written.sources == ("a",)
    assert written.heredocs == (Heredoc("f.txt", "1\n", True, False), Heredoc("g", "2\n", False, False))
    add = one("ADD --checksum=sha256:00 https://example.org/x.tar /x")
    assert isinstance(add, i.Copy)
    assert (add.add, add.checksum) == (True, "sha256:00")


def test_names_and_values() -> None:
    found = parse("ENV A=1 B=\"b c\" C=d\\ e\nENV OLD form  of it\nARG X Y=2\nLABEL a.b=\"c\"\n")[1]
    assert [getattr(one, "values") for one in found] == [  # noqa: B009 - four kinds
        (("A", "1"), ("B", '"b c"'), ("C", "d\\ e")),
        (("OLD", "form  of it"),),
        (("X", None), ("Y", "2")),
        (("a.b", '"c"'),),
    ]


def test_the_rest() -> None:
    text = (
        'CMD []\nENTRYPOINT ["a"]\nSHELL ["/bin/bash", "-c"]\nWORKDIR /a b\nUSER u:g\nEXPOSE 80 90/udp\n'
        'VOLUME ["/a b"]\nVOLUME /a /b\nSTOPSIGNAL TERM\nHEALTHCHECK NONE\n'
        "HEALTHCHECK --interval=1m30s --retries=3 CMD curl x\nONBUILD COPY . /x\nMAINTAINER me <me@example.org>\n"
    )
    found = [{k: v for k, v in one.__dict__.items() if k not in ("line", "text")} for one in parse(text)[1]]
    assert found == [
        {"command": i.Command((), False)},
        {"command": i.Command(("a",), False)},
        {"words": ("/bin/bash", "-c")},
        {"path": "/a b"},
        {"user": "u:g"},
        {"ports": ("80", "90/udp")},
        {"paths": ("/a b",)},
        {"paths": ("/a", "/b")},
        {"signal": "TERM"},
        {"command": None, "options": ()},
        {"command": i.Command(("curl x",), True), "options": (("interval", "1m30s"), ("retries", "3"))},
        {"trigger": "COPY . /x"},
        {"name": "me <me@example.org>"},
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("FROM a\nRNU x\n", "Containerfile:2: RNU: unknown instruction: did you mean RUN?"),
        ("FROM a\n\nRUN \\\n\n", "Containerfile:3: RUN: says nothing after its name"),
        ("FROM a b\n", "Containerfile:1: FROM: takes one image, or: IMAGE AS NAME"),
        ("FROM a AS 1x\n", "a stage cannot be called '1x'"),
        ("COPY a\n", "Containerfile:1: COPY: needs a source and a target"),
        ("COPY --chwon=1 a b\n", "--chwon: unknown flag: did you mean --chown?"),
        ("COPY --from=$x a b\n", "--from=$x: has no variables"),
        ("ENV A=1 B\n", "'B' has no '='"),
        ("ENV A\n", "'A' has no '='"),
        ("ARG =1\n", "'=1' has no name"),
        ("SHELL bash -c\n", "takes a JSON list"),
        ("RUN --mount=type=ssh x\n", "--mount=type=ssh: forwarding of ssh agents is not available"),
        ("RUN --mount=type=bnd,target=/x x\n", "--mount=type=bnd: use bind, cache, tmpfs, secret"),
        ("RUN --mount=type=cache x\n", "says not where: give target=/PATH"),
        ("RUN --mount=type=cache,target=/x,szie=1 x\n", "unknown field"),
        ("RUN --network=bridge x\n", "--network=bridge: use default, none or host"),
        ("RUN --security=insecure x\n", "builds have no privileges to give"),
        ("RUN cat <<EOF\nx\n", "Containerfile:1: RUN: the here-document EOF has no end: no line is EOF"),
        ("HEALTHCHECK --interval=3 CMD x\n", "--interval=3: is no time"),
        ("HEALTHCHECK curl x\n", "takes NONE, or CMD and a command"),
        ("ONBUILD FROM x\n", "FROM cannot be a trigger"),
        ("ONBUILD COPY a\n", "needs a source and a target"),
        ("ADD https://example.org/a.git /x\n", "git repositories are not fetched"),
    ],
)
def test_errors_have_file_line_and_instruction(text: str, message: str) -> None:
    with pytest.raises(ContainerfileError) as caught:
        parse(text)
    words = str(caught.value)
    assert message in words
    assert words.startswith("Containerfile:")
    assert "\n" not in words


LINES = st.sampled_from(
    ["FROM a", "RUN x \\", "# c", "", "  y", "RUN <<E", "E", "ENV a=b", "COPY a b", "\\", "ENV x='", "COPY <<E /x"]
)


@given(st.lists(LINES | st.text("RUNCOPYFM <>-='\"\\#$\n\t", max_size=12), max_size=8))
def test_anything_is_read_or_refused(lines: list[str]) -> None:
    try:
        source, found = parse("\n".join(lines))
    except ContainerfileError as error:
        assert 1 <= error.line <= len("\n".join(lines).split("\n"))
    else:
        assert len(source.lines) == len(found)
        assert [one.line for one in found] == sorted(one.line for one in found)
