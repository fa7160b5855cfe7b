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


def changed(token: str, part: int, value: str) -> str:
    parts = token.split(":")  # host, boot, PID namespace, PID, ticks when it started
    parts[part] = value
    return ":".join(parts)


def test_a_process_is_dead_once_it_has_ended() -> None:
    assert not owner.is_dead(owner.token())
    assert owner.is_dead(token_of_a_process_that_ended())


def test_neither_a_pid_that_was_given_again_nor_another_boot_brings_it_back() -> None:
    ticks = int(owner.token().rpartition(":")[2])
    assert owner.is_dead(changed(owner.token(), 4, str(ticks - 1)))
    assert owner.is_dead(changed(owner.token(), 1, "other-boot"))


def test_what_cannot_be_known_is_left_alone() -> None:
    ended = token_of_a_process_that_ended()
    assert not owner.is_dead(changed(ended, 0, "elsewhere"))
    assert not owner.is_dead(changed(ended, 2, "another"))
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
