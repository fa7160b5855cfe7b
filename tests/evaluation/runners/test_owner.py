import os
import subprocess
import sys

from evaluation.runners import owner


def token_of_a_process_that_ended() -> str:
    done = subprocess.run(
        [sys.executable, "-c", "from evaluation.runners import owner; print(owner.token())"],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def test_a_running_process_is_not_dead() -> None:
    assert not owner.is_dead(owner.token())


def test_a_process_that_ended_is_dead() -> None:
    assert owner.is_dead(token_of_a_process_that_ended())


def test_a_pid_that_was_given_again_does_not_bring_it_back() -> None:
    host, boot, namespace, pid, ticks = owner.token().split(":")
    assert owner.is_dead(":".join((host, boot, namespace, pid, str(int(ticks) - 1))))


def test_before_the_last_boot_everything_is_dead() -> None:
    host, _, namespace, pid, ticks = owner.token().split(":")
    assert owner.is_dead(":".join((host, "other-boot", namespace, pid, ticks)))


def test_what_cannot_be_known_is_left_alone() -> None:
    host, boot, namespace, pid, ticks = token_of_a_process_that_ended().split(":")
    assert not owner.is_dead(":".join(("elsewhere", boot, namespace, pid, ticks)))
    assert not owner.is_dead(":".join((host, boot, "another", pid, ticks)))
    assert not owner.is_dead("something else")


def test_a_zombie_has_ended() -> None:
    script = "from evaluation.runners import owner; print(owner.token(), flush=True)"
    process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    token = process.stdout.read().strip()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # it stays a zombie
    try:
        assert owner.is_dead(token)
    finally:
        process.wait()
        process.stdout.close()
