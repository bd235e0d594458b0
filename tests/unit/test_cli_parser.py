"""The parser of command lines: docker's rules, runc's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corten.cli import help as pages
from corten.cli.parser import Command, Group, HelpWanted, Option, UsageError, parse
from corten.cli.run import COMMAND as RUN

TABLE = (
    Group(
        "Some",
        (
            Option(("-m", "--memory"), "SIZE", "How much"),
            Option(("-e", "--env"), "KEY", "Variables", repeat=True),
            Option(("-i", "--interactive"), help="Input"),
            Option(("-t", "--tty"), help="Terminal"),
            Option(("--init",), help="Init"),
            Option(("--number",), "N", read=lambda name, text: (name, int(text))),
            Option(("--no-subreaper",), hidden=True),
            Option(("-d", "--detach"), refuse="not yet"),
        ),
    ),
)
DOCKER = Command("c", "[OPTIONS] IMAGE", "Sum.", TABLE)
RUNC = Command("r", "ID", "Sum.", TABLE, single_dash=True, interspersed=True, maximum=1)


def values(*words: str) -> dict[str, object]:
    return parse(DOCKER, words)[0]


@pytest.mark.parametrize(
    "words",
    [("--memory", "512m"), ("--memory=512m",), ("-m", "512m"), ("-m512m",), ("-m=512m",)],
)
def test_an_argument_is_found_in_every_form(words: tuple[str, ...]) -> None:
    assert parse(DOCKER, (*words, "image", "-x")) == ({"memory": "512m"}, ["image", "-x"])


def test_short_switches_cluster_and_the_last_may_take_an_argument() -> None:
    assert values("-it") == {"interactive": True, "tty": True}
    assert values("-itm1g") == {"interactive": True, "tty": True, "memory": "1g"}
    assert values("-itm", "1g") == {"interactive": True, "tty": True, "memory": "1g"}
    assert values("-ti=false") == {"tty": True, "interactive": False}


def test_switches_take_a_truth_only_with_an_equals_sign() -> None:
    assert parse(DOCKER, ["--init", "false"]) == ({"init": True}, ["false"])
    assert values("--init=false", "--tty=1") == {"init": False, "tty": True}
    with pytest.raises(UsageError, match=r"^--init: 'maybe' is neither true nor false$"):
        values("--init=maybe")


def test_repeated_options_append_and_do_not_split_on_commas() -> None:
    assert values("-e", "A=1,2", "--env=B", "-eC=-") == {"env": ["A=1,2", "B", "C=-"]}


def test_of_an_option_that_is_not_repeated_the_last_one_holds() -> None:
    assert values("-m1", "-m", "2") == {"memory": "2"}


def test_an_argument_may_begin_with_a_dash_or_be_empty() -> None:
    assert values("--memory", "-1") == {"memory": "-1"}
    assert values("--memory=") == {"memory": ""}


def test_options_end_at_the_first_argument_and_at_two_dashes() -> None:
    tail = ["image", "-t", "--", "--help"]
    assert parse(DOCKER, ["-i", *tail]) == ({"interactive": True}, tail)
    assert parse(DOCKER, ["--", "-t"]) == ({}, ["-t"])
    assert parse(DOCKER, ["-", "-t"]) == ({}, ["-", "-t"])


def test_runc_takes_options_after_arguments_and_one_dash() -> None:
    assert parse(RUNC, ["-no-subreaper", "-memory=1", "id", "--tty"]) == (
        {"no_subreaper": True, "memory": "1", "tty": True},
        ["id"],
    )
    with pytest.raises(UsageError, match="unexpected argument 'two'"):
        parse(RUNC, ["one", "two"])


def test_reader_gets_the_name_as_typed() -> None:
    assert values("--number", "3") == {"number": ("--number", 3)}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--memroy", "1"], "unknown option --memroy: did you mean --memory?"),
        (["--memory"], "--memory requires an argument"),
        (["-m"], "-m requires an argument"),
        (["-itm"], "-m requires an argument"),
        (["-xinit"], "unknown option -xinit: did you mean --init?"),
        (["-init"], "unknown option -n: 'c --help' lists the options"),
        (["-itx"], "unknown option -x: 'c --help' lists the options"),
        (["--zzzzzz"], "unknown option --zzzzzz: 'c --help' lists the options"),
        (["--detatch"], "unknown option --detatch: 'c --help' lists the options"),
        (["-d"], "-d: not yet"),
    ],
)
def test_mistakes_are_one_clear_line(words: list[str], message: str) -> None:
    with pytest.raises(UsageError) as caught:
        values(*words)
    assert str(caught.value) == message


def test_help_is_asked_for_before_the_image_only() -> None:
    for words in (["--help"], ["-i", "--help"], ["-h"]):
        with pytest.raises(HelpWanted) as caught:
            parse(DOCKER, words)
        assert caught.value.command is DOCKER
    assert parse(DOCKER, ["image", "--help"])[1] == ["image", "--help"]


def test_too_few_arguments() -> None:
    with pytest.raises(UsageError, match=r"^name one$"):
        parse(DOCKER.replace(minimum=1, missing="name one"), [])


@pytest.mark.parametrize("columns", [60, 80, 100])
def test_help_fits_and_shows_every_option(columns: int) -> None:
    text = pages.render(RUN, columns)
    # Only the notes and the heads of options are not wrapped.
    assert max(map(len, text.splitlines())) <= max(columns, 80)
    shown = [option for group in RUN.groups for option in group.options if not option.refuse]
    assert len(shown) > 70
    for option in shown:
        assert f"{option.names[-1]} " in text or f"{option.names[-1]}\n" in text
    assert "--privileged" not in text


def test_no_name_is_given_to_two_options() -> None:
    names = [name for group in RUN.groups for option in group.options for name in option.names]
    assert len(names) == len(set(names))


@given(st.lists(st.text()))
def test_any_words_give_values_or_a_usage_error(words: list[str]) -> None:
    try:
        parse(DOCKER.replace(groups=(Group("", TABLE[0].options[:5]),)), words)
    except UsageError as error:
        assert str(error)
    except HelpWanted:
        pass


@given(st.lists(st.sampled_from(["-i", "-t", "-m1", "--memory=2", "-eX", "--env=x", "--init"])))
def test_words_from_the_first_argument_on_are_untouched(words: list[str]) -> None:
    tail = ["image", "-i", "--", "--nope"]
    assert parse(DOCKER, [*words, *tail])[1][-4:] == tail
