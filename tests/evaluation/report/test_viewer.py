"""The viewer in the page: a scan with mask and reference out of files, checked by its pixels."""

from __future__ import annotations

import io
import re
import shutil
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, expect

from tests.evaluation.report.conftest import Reader
from tests.evaluation.report.scanned import CASE

ADDRESS = f"#/team/alpha/{CASE}"
REFERENCE = (53, 208, 255)  # of an outline; the mask is orange and lets the scan through


@pytest.fixture
def folder(results: Path, tmp_path: Path) -> Path:
    """A folder as an organiser has it: scans, labels, results/TEAM/predictions; another team's."""
    whole = tmp_path / "challenge"
    for name in ("scans", "labels"):
        shutil.copytree(results.parent / name, whole / name)
    for team in ("alpha", "beta"):
        masks = Path(team) / "predictions"
        shutil.copytree(results / "alpha" / "predictions", whole / "results" / masks)
    return whole


def opened(reader: Reader, report: Path, folder: Path, address: str = ADDRESS) -> Page:
    """A case's page, whose files are looked for in a folder."""
    page = reader.open(report, address)
    page.locator("input[webkitdirectory]").set_input_files(folder)
    return page


def shot(page: Page) -> NDArray[np.int_]:
    """What the canvas shows, (y, x, RGB)."""
    expect(page.locator(".stage .controls")).to_be_visible(timeout=30_000)
    page.wait_for_timeout(300)  # a frame is drawn
    png = page.locator(".stage canvas").screenshot()
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def reference_pixels(picture: NDArray[np.int_]) -> int:
    return int((np.abs(picture - REFERENCE).max(axis=2) < 12).sum())


def mask_pixels(picture: NDArray[np.int_]) -> int:
    """Orange over grey: red well above blue."""
    return int((picture[..., 0] - picture[..., 2] > 50).sum())


def grey_pixels(picture: NDArray[np.int_]) -> int:
    """Soft tissue: neither black nor coloured."""
    return int(((np.ptp(picture, axis=2) < 8) & (picture.mean(axis=2) > 60)).sum())


def test_a_folder_shows_the_scan_with_its_mask_and_reference(
    reader: Reader, report: Path, folder: Path
) -> None:
    expect(reader.open(report, ADDRESS).get_by_role("button", name="Show")).to_be_disabled()
    page = opened(reader, report, folder)
    both = shot(page)
    assert page.locator(".files .path").all_inner_texts() == [
        f"challenge/scans/{CASE}_0000.nii.gz",
        f"challenge/results/alpha/predictions/{CASE}.nii.gz",
        f"challenge/labels/{CASE}.nii.gz",
    ]
    assert grey_pixels(both) > 10_000
    assert mask_pixels(both) > 300
    assert reference_pixels(both) > 100

    page.get_by_label("mask (filled)").uncheck()
    without_mask = shot(page)
    assert mask_pixels(without_mask) == 0
    assert reference_pixels(without_mask) >= reference_pixels(both)
    page.get_by_label("reference (outline)").uncheck()
    assert reference_pixels(shot(page)) == 0


def test_a_slider_leaves_the_lesion_and_the_window_changes_the_greys(
    reader: Reader, report: Path, folder: Path
) -> None:
    page = opened(reader, report, folder)
    page.get_by_label("Planes").select_option("axial")
    at_lesion = shot(page)
    assert page.get_by_label("axial", exact=True).input_value() == "20", "where it is widest"
    page.get_by_label("axial", exact=True).focus()
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    away = shot(page)
    assert reference_pixels(at_lesion) > 50
    assert reference_pixels(away) == 0
    page.get_by_label("Window").select_option("lung")
    assert shot(page)[away.mean(axis=2) > 60].mean() > away[away.mean(axis=2) > 60].mean() + 20


def test_planes_are_named_and_the_cursor_has_a_value(
    reader: Reader, report: Path, folder: Path
) -> None:
    page = opened(reader, report, folder)
    with_crosshair = shot(page)
    assert page.locator(".frame .plane").all_inner_texts() == ["axial", "coronal", "sagittal"]
    scan = nib.Nifti1Image.from_filename(folder / "scans" / f"{CASE}_0000.nii.gz").get_fdata()
    box = page.locator(".stage canvas").bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 6, box["y"] + box["height"] / 2)
    expect(page.locator(".hu")).to_have_text(re.compile(r"^-?\d+ HU$"))
    value = int(page.locator(".hu").inner_text().split()[0])
    assert value in np.unique(np.rint(scan[:, :, 20])), "of the axial slice that is shown"
    page.get_by_label("crosshair").uncheck()
    assert (shot(page) != with_crosshair).any()
    page.get_by_label("Planes").select_option("coronal")
    assert page.locator(".frame .plane").all_inner_texts() == ["coronal"]


def test_a_mask_is_made_fainter(reader: Reader, report: Path, folder: Path) -> None:
    page = opened(reader, report, folder)
    before = mask_pixels(shot(page))
    page.get_by_label("opacity of the mask").fill("0.1")
    assert mask_pixels(shot(page)) < before / 2


def test_the_next_case_of_the_folder_needs_no_choosing(
    reader: Reader, report: Path, folder: Path
) -> None:
    page = opened(reader, report, folder, "#/team/beta/FLARE_Ts_0002")
    said = "4 NIfTI files there; none is this case's scan or mask or reference."
    expect(page.locator(".viewer .said")).to_have_text(said)
    page.get_by_role("link", name="Previous case").click()
    assert reference_pixels(shot(page)) > 100


def test_single_files_are_chosen_one_by_one(reader: Reader, report: Path, folder: Path) -> None:
    page = reader.open(report, ADDRESS)
    scan = folder / "scans" / f"{CASE}_0000.nii.gz"
    page.get_by_label("Choose the scan's file").set_input_files(scan)
    page.get_by_role("button", name="Show").click()
    picture = shot(page)
    assert grey_pixels(picture) > 10_000
    assert reference_pixels(picture) == 0


def test_files_can_be_dropped(reader: Reader, report: Path, folder: Path) -> None:
    page = reader.open(report, ADDRESS)
    scan = (folder / "scans" / f"{CASE}_0000.nii.gz").read_bytes()
    page.evaluate(
        """([name, bytes]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name));
          const options = { dataTransfer: transfer, bubbles: true, cancelable: true };
          const drop = new DragEvent("drop", options);
          document.querySelector(".viewer").dispatchEvent(drop);
        }""",
        [f"{CASE}_0000.nii.gz", list(scan)],
    )
    expect(page.locator(".viewer .said")).to_contain_text("1 NIfTI files there")
    page.get_by_role("button", name="Show").click()
    assert grey_pixels(shot(page)) > 10_000


def test_a_file_that_is_no_scan_is_named(reader: Reader, report: Path, tmp_path: Path) -> None:
    page = reader.open(report, ADDRESS)
    broken = tmp_path / "broken_0000.nii.gz"
    broken.write_bytes(b"no scan")
    page.get_by_label("Choose the scan's file").set_input_files(broken)
    page.get_by_role("button", name="Show").click()
    said = "broken_0000.nii.gz: cannot be read as the scan"
    expect(page.locator(".viewer .said")).to_contain_text(said)
    reader.said.clear()  # NiiVue says it, too


@pytest.fixture
def address(folder: Path, report: Path) -> Iterator[str]:
    """Where a server hands out the report, with scans, labels and results beside it."""
    (folder / "report.html").write_bytes(report.read_bytes())
    (folder / "results" / "alpha").rename(folder / "alpha")
    serve = partial(_Silent, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), serve) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/report.html"
        server.shutdown()


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_what_lies_beside_a_served_page_is_fetched(reader: Reader, address: str) -> None:
    page = reader.page
    page.goto(f"{address}{ADDRESS}")
    page.get_by_role("button", name="Open from beside this page").click()
    picture = shot(page)
    assert mask_pixels(picture) > 300
    assert reference_pixels(picture) > 100
