"""What runs where next: decisions alone, on a clock that the tests move."""

from __future__ import annotations

import pytest

from evaluation.batch.board import LOSSES, Board, Kind, Measure, Place, Release, Score, Task
from evaluation.harness import ATTEMPTS, FAILURES, PAUSE_S


def gpu(machine: str) -> Place:
    return Place(machine, Kind.GPU)


def cpu(machine: str) -> Place:
    return Place(machine, Kind.CPU)


def board(*, overlap: bool = False, score: str = "", **teams: str) -> Board:
    """Teams with a letter for each case."""
    return Board(
        {name: list(cases) for name, cases in teams.items()},
        {name: list(score) for name in teams},
        overlap=overlap,
    )


def runs(board: Board, now: float = 0.0) -> dict[str, str]:
    """Who begins to run what, as team and case."""
    return {
        worker: task.team + task.case
        for worker, task in board.assign(now)
        if isinstance(task, Measure)
    }


def begun(board: Board, now: float = 0.0) -> dict[str, Task]:
    return dict(board.assign(now))


def test_a_worker_has_one_task_at_a_time_and_every_case_runs_once() -> None:
    b = board(x="abc", y="d")
    b.see({"1": gpu("m"), "2": gpu("n")})
    ran: list[str] = []
    for _ in range(4):
        new = runs(b)
        ran += new.values()
        assert runs(b) == {}
        for worker in new:
            b.done(worker)
    assert sorted(ran) == ["xa", "xb", "xc", "yd"]


def test_workers_of_a_machine_share_a_team_and_machines_spread_over_teams() -> None:
    b = board(x="abcdef", y="ghijkl")
    b.see({"m1": gpu("m"), "m2": gpu("m"), "n1": gpu("n"), "n2": gpu("n")})
    teams = {worker: case[0] for worker, case in runs(b).items()}
    assert teams["m1"] == teams["m2"] != teams["n1"] == teams["n2"]


def test_a_worker_stays_with_its_team_then_helps_where_most_is_left_for_each_machine() -> None:
    b = board(x="a", y="bcdefg", z="hijk")
    b.see({"1": gpu("m")})
    assert runs(b) == {"1": "yb"}
    b.see({"1": gpu("m"), "2": gpu("n"), "3": gpu("o")})
    assert runs(b) == {"2": "zh", "3": "yc"}  # 4 for the first machine there, 5/2 for a second
    b.done("3")
    assert runs(b) == {"3": "yd"}


def test_an_image_is_given_back_when_nothing_is_left_for_it() -> None:
    b = board(x="a")
    b.see({"1": gpu("m")})
    runs(b)
    b.done("1")
    assert begun(b) == {"1": Release("x")}
    b.done("1")
    assert begun(b) == {}


def test_scoring_waits_for_the_timed_runs_of_its_machine_alone() -> None:
    b = board(x="ab", score="c")
    b.see({"1": gpu("m"), "2": cpu("m")})
    assert begun(b) == {"1": Measure("x", "a", 1)}
    b.see({"1": gpu("m"), "2": cpu("m"), "3": cpu("n")})
    assert begun(b) == {"3": Score("x", "c")}
    b.done("3")
    b.done("1")
    # The run comes first, and keeps the machine's own scorer waiting.
    assert begun(b) == {"1": Measure("x", "b", 1), "3": Score("x", "a")}
    b.done("3")
    b.done("1")
    assert begun(b) == {"1": Release("x"), "3": Score("x", "b")}


def test_scoring_beside_timed_runs_if_told_so() -> None:
    b = board(overlap=True, x="a", score="b")
    b.see({"1": gpu("m"), "2": cpu("m")})
    assert begun(b) == {"1": Measure("x", "a", 1), "2": Score("x", "b")}


def test_a_failed_case_is_tried_elsewhere_and_last() -> None:
    b = board(x="abc")
    b.see({"1": gpu("m"), "2": gpu("n")})
    assert runs(b) == {"1": "xa", "2": "xb"}
    assert b.failed("1", "engine gone", 0.0) == ""
    assert runs(b, PAUSE_S) == {"1": "xc"}
    b.done("1")
    assert runs(b, PAUSE_S) == {}  # it failed on this machine, there is another
    b.done("2")
    assert begun(b, PAUSE_S)["2"] == Measure("x", "a", 2)


def test_without_another_machine_it_is_tried_on_the_same_after_a_pause() -> None:
    b = board(x="a")
    b.see({"1": gpu("m")})
    runs(b)
    b.failed("1", "engine gone", 10.0)
    assert begun(b, 10.0 + PAUSE_S - 0.1) == {}
    assert b.obstacle() is None
    assert begun(b, 10.0 + PAUSE_S) == {"1": Measure("x", "a", 2)}


def test_a_team_that_fails_as_a_machine_does_costs_no_worker_while_there_are_others() -> None:
    b = board(bad="abcdefgh", good="ijkl")
    b.see({"1": gpu("m")})
    ran, closed, now = "", "", 0.0
    while not closed:
        now += PAUSE_S
        (case,) = runs(b, now).values()
        ran += case[-1]
        if case.startswith("good"):
            b.done("1")
        else:
            closed = b.failed("1", "engine gone", now)
    assert ran == "ab" + "ijkl" + "cde"


def test_a_case_that_fails_everywhere_is_given_up_with_all_reasons() -> None:
    b = board(x="ab")
    b.see({str(i): gpu(f"m{i}") for i in range(ATTEMPTS)})
    now = 0.0
    tried = []
    while ("x", "a") not in b.given_up:
        now += PAUSE_S
        for worker, case in runs(b, now).items():
            if case == "xa":
                tried.append(worker)
                b.failed(worker, f"reason {len(tried)}", now)
            else:
                b.done(worker)
    assert len(set(tried)) == ATTEMPTS
    assert b.given_up == {("x", "a"): "reason 1; then: reason 2; then: reason 3"}


def test_a_worker_that_fails_again_and_again_gets_nothing_more_and_the_rest_goes_on() -> None:
    cases = "abcdefgh"
    b = board(x=cases)
    b.see({"good": gpu("m"), "bad": gpu("n")})
    now, closed, ran = 0.0, "", ""
    while not b.is_over:
        now += PAUSE_S
        for worker, task in b.assign(now):
            if isinstance(task, Measure):
                ran += task.case if worker == "good" else ""
                closed = b.failed(worker, "GPU lost", now) if worker == "bad" else closed
            if worker == "good":
                b.done(worker)
        if sorted(ran) == list(cases):
            break
    assert closed == f"n: {FAILURES} failures in a row, the last: GPU lost"
    assert b.given_up == {}


def test_when_all_workers_have_failed_that_is_the_obstacle() -> None:
    b = board(x="abcdefgh")
    b.see({"1": gpu("m"), "2": cpu("m")})
    for i in range(FAILURES):
        runs(b, i * PAUSE_S)
        b.failed("1", "GPU lost", i * PAUSE_S)
    assert runs(b, 1000.0) == {}
    obstacle = b.obstacle()
    assert obstacle is not None
    assert not obstacle.may_pass
    assert "m: 3 failures in a row, the last: GPU lost" in obstacle.text
    b.abandon(obstacle.text)
    assert b.is_over
    assert {case for _, case in b.given_up} == set("abcdefgh")


@pytest.mark.parametrize(("team", "what"), [("a", "runs submissions"), ("", "scores")])
def test_without_a_worker_that_is_the_obstacle(team: str, what: str) -> None:
    b = board(x=team, score="b")
    obstacle = b.obstacle()
    assert obstacle is not None
    assert (obstacle.text, obstacle.may_pass) == (f"there is no worker that {what}", True)


def test_what_a_lost_worker_was_at_is_done_again_on_any_machine() -> None:
    b = board(x="a")
    b.see({"1": gpu("m"), "2": gpu("m")})
    (first,) = runs(b)
    assert b.see({"2" if first == "1" else "1": gpu("m")}) == [(gpu("m"), Measure("x", "a", 1))]
    assert begun(b) == {("2" if first == "1" else "1"): Measure("x", "a", 1)}


def test_a_case_that_ends_its_workers_is_given_up() -> None:
    b = board(x="ab")
    for i in range(LOSSES):
        b.see({str(i): gpu("m")})
        while runs(b) != {str(i): "xa"}:
            b.done(str(i))
    b.see({"last": gpu("m")})
    assert f"{LOSSES} workers ended while they were at it" in b.given_up["x", "a"]
    assert begun(b) == {}


def test_a_scheduler_that_is_lost_is_no_case_s_fault() -> None:
    b = board(x="a", score="b")
    for i in range(2 * LOSSES):
        b.see({f"gpu{i}": gpu("m"), f"cpu{i}": cpu("n")})
        assert len(begun(b)) == 2
        b.forget()
    assert b.given_up == {}
    assert b.left == 3


def test_a_refused_team_is_not_run_and_what_was_measured_of_it_is_scored() -> None:
    b = board(x="abc", score="d")
    b.see({"1": gpu("m"), "2": gpu("m"), "3": cpu("n")})
    assert len(begun(b)) == 3
    b.refuse("1", "no predict.sh")
    b.failed("2", "stopped", 0.0)
    b.done("3")
    assert begun(b, PAUSE_S) == {}
    assert (b.is_over, b.refused) == (True, {"x": "no predict.sh"})


def test_a_task_whose_end_nobody_knows_is_done_again() -> None:
    b = board(x="a")
    b.see({"1": gpu("m")})
    runs(b)
    b.dropped("1", 0.0)
    assert begun(b) == {}
    assert begun(b, PAUSE_S) == {"1": Measure("x", "a", 1)}
