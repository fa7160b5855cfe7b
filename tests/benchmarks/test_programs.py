from pathlib import Path

import pytest

from benchmarks.programs import (
    Steps,
    app_command,
    app_stages,
    app_steps,
    app_warnings,
    nnunet_command,
    nnunet_stages,
)

SAID = """model m: PlainConvUNet, 1 member(s), bfloat16 on cpu, ready 1.25 s after process start
warning: /a/x_0000.nii.gz: something
x: 1 window per batch, slabs of 4 sections, buffers on the device, at most 900 MiB
x: read 0.01 s, preprocess 0.10 s, network 12.20 s, restore 0.18 s, write 0.02 s, total 12.51 s -> y
"""
STAGES = {"read": 0.01, "preprocess": 0.1, "network": 12.2, "restore": 0.18, "write": 0.02}
LARGER = (
    "warning: f: 1.2 s a window: 90 windows (step 0.5) would end 3.0 s after the time budget less "
    "2 s; starting again with step {} ({} windows)\n"
)


def test_the_apps_own_stages() -> None:
    assert app_stages(SAID) == {**STAGES, "ready": 1.25}
    with_device = SAID.replace("x: read", "x: device 0.75 s, read")
    assert app_stages(with_device) == {**STAGES, "ready": 1.25, "device": 0.75}


@pytest.mark.parametrize("gone", ["ready 1.25 s", "restore 0.18 s"])
def test_other_words_are_refused(gone: str) -> None:
    with pytest.raises(ValueError, match=f"no time for {gone.split()[0]}"):
        app_stages(SAID.replace(gone, ""))


def test_steps_are_those_planned_unless_the_last_warning_says_otherwise() -> None:
    assert app_steps(SAID, Steps(0.5, 90)) == Steps(0.5, 90)
    twice = LARGER.format("0.667", 48) + LARGER.format("0.8", 36) + SAID
    assert app_steps(twice, Steps(0.5, 90)) == Steps(0.8, 36)
    assert app_stages(twice) == app_stages(SAID)


def test_warnings() -> None:
    assert app_warnings(SAID) == ["warning: /a/x_0000.nii.gz: something"]


def test_nnunet_stages_are_the_last_of_what_is_printed() -> None:
    assert nnunet_stages('noise\nSTAGES {"network": 2.5}\n') == {"network": 2.5}


def test_nnunet_gets_its_own_default_device_on_a_gpu() -> None:
    folders = Path("t"), Path("i"), Path("o")
    assert "-device" not in nnunet_command(*folders, "cuda")
    on_cpu = nnunet_command(*folders, "cpu")
    assert on_cpu[on_cpu.index("-device") + 1] == "cpu"


def test_app_command_is_understood_by_the_app() -> None:
    from app.__main__ import _parser

    command = app_command(Path("m"), Path("i"), Path("o"), "cuda", "--exact")
    arguments = [str(a) for a in command[command.index("app") + 1 :]]
    args = _parser().parse_args(arguments)
    assert (args.model, args.device, args.exact) == ("m", "cuda", True)
