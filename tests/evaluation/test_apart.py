"""Calls in a process of their own; what scoring makes of them is in test_unscorable.py."""

from __future__ import annotations

import contextlib
import os

import pytest

from evaluation.apart import Apart, CallFailed, each
from evaluation.errors import EvaluationError


def chatty(value: int) -> tuple[int, int]:
    """Print as a library does that has no Python, and return what was given."""
    os.write(1, b"\x80\x04 no answer")
    return value, os.getpid()


def refuse(value: int) -> None:
    raise EvaluationError(f"refused {value}")


def wait() -> None:
    os.read(0, 1)


def test_one_process_serves_until_it_fails(capfd: pytest.CaptureFixture[str]) -> None:
    with contextlib.closing(Apart()) as apart:
        first, second = apart.call(chatty, 1), apart.call(chatty, 2)
        assert (first[0], second[0], first[1]) == (1, 2, second[1])
        with pytest.raises(EvaluationError, match="refused 3"):
            apart.call(refuse, 3)
        with pytest.raises(CallFailed, match="code 7"):
            apart.call(os._exit, 7)
        value, process = apart.call(chatty, 4)
        assert value == 4
        assert process not in (first[1], os.getpid())
    assert capfd.readouterr().out == ""


def test_what_the_check_raises_ends_the_call() -> None:
    def check() -> None:
        raise KeyboardInterrupt

    with contextlib.closing(Apart()) as apart, pytest.raises(KeyboardInterrupt):
        apart.call(wait, check=check)


def test_each_job_has_its_outcome_in_order() -> None:
    found = list(each(os._exit, [(3,)])) + list(each(chatty, [(i,) for i in range(5)]))
    assert isinstance(found[0], CallFailed)
    assert [one[0] for one in found[1:] if isinstance(one, tuple)] == list(range(5))


def test_a_refusal_ends_them_all() -> None:
    with pytest.raises(EvaluationError, match="refused 0"):
        list(each(refuse, [(i,) for i in range(50)]))
