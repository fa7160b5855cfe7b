"""Records as a run would write them, for tests of what is made from records."""

from msgspec.structs import replace

from evaluation.record import Record, Usage, Vram
from evaluation.scoring.assess import Accuracy
from evaluation.states import State

ACCURACY = Accuracy(
    dsc=0.8123,
    nsd=0.5,
    classes={"Lesion": (0.8123, 0.5)},
    reference_ml=3.5,
    predicted_ml=4.0,
    lesion_count=2,
    lesion_f1=0.5,
    lesion_sensitivity=0.5,
    lesion_precision=None,
    false_positive_ml=0.0,
    false_negative_ml=0.25,
)
VRAM = Vram(
    peak_vram_mib=1234.5,
    area_mib_s=9000.0,
    vram_limit_mib=4096.0,
    area_above_limit_mib_s=0.0,
    first_use_s=2.5,
    baseline_mib=7.8,
    baseline_spread_mib=0.0,
    tail_s=0.1,
    tail_area_mib_s=12.0,
    accounting_peak_mib=None,
    samples=600,
    interval_p50_s=0.02,
    interval_p99_s=0.021,
    interval_max_s=0.03,
    memory_api="v2",
    flare_max_gpu_mb=1242.0,
    flare_auc_gpu_time=9100.0,
    contaminated=("another process (PID 7, Xorg, 5 MiB) was on the GPU",),
)
USAGE = Usage(
    runtime_s=12.0,
    wall_s=12.5,
    flare_time_s=12.5,
    exit_code=0,
    cpu_s=None,
    peak_ram_mib=2048.0,
    measured_by="cgroup v2",
)
RECORD = Record(
    case="case_1",
    state=State.OK,
    message="",
    size_xyz=(512, 512, 55),
    scans_sha256=("a", "b"),
    reference_sha256="c",
    attempts=1,
    started="2024-11-22T10:00:00.000+00:00",
    usage=USAGE,
    vram=VRAM,
    accuracy=ACCURACY,
    log=("loading", "done, all of it"),
    environment={"image_digest": "sha256:1", "limits": {"memory_mib": 28672}},
)
WITHOUT_GPU = replace(RECORD, vram=None)
