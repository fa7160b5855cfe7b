"""Words of others, as a terminal may print them."""

from __future__ import annotations

import pickle

import pytest

from volumes.errors import UserError, VolumeError
from volumes.text import one_line, printable, shortened


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\u00e9 \u4e2d \U0001f600 a\\b", "\u00e9 \u4e2d \U0001f600 a\\b"),
        ("\x1b[31mred", "?[31mred"),
        ("\x9b2J\x07\x00\x7f", "?2J???"),
        ("a\rb\x08c", "a bc".replace("bc", "b?c")),
        ("left\u202eright\u2066\u200b", "left?right??"),
        ("not\udcffUTF-8", "not?UTF-8"),
        ("two\n  lines\u2028and\x85more\n", "two lines and more"),
        ("a\tb", "a?b"),
    ],
)
def test_a_line_is_one_and_printable(text: str, shown: str) -> None:
    assert one_line(text) == shown.replace("?", "\N{REPLACEMENT CHARACTER}")


def test_what_is_to_be_kept_is() -> None:
    assert printable("a\tb\nc\x1b", "\t\n") == "a\tb\nc\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize("most", [20, 21])
def test_the_middle_goes(most: int) -> None:
    text = "start" + "n" * 1000 + "; end"
    cut = shortened(text, most)
    assert len(cut) == most
    assert cut.startswith("start")
    assert cut.endswith("; end")
    assert shortened(cut, most) == cut


@pytest.mark.parametrize("kind", [UserError, VolumeError])
def test_an_error_is_a_line_for_each_message_wherever_it_goes(kind: type[UserError]) -> None:
    error = kind("a\nb", "c\x1b")
    assert str(error) == "a b\nc\N{REPLACEMENT CHARACTER}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
