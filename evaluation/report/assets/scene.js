// The drawing of volumes, which NiiVue does, and its controls.

import { unzip } from "./data.js";
import { el, newId } from "./dom.js";
import { keepOnly, outline, widest } from "./masks.js";

const WINDOWS_HU = {
  "soft tissue": [-160, 240],
  lung: [-1150, 350],
  bone: [-450, 1050],
};
const PLANES = ["sagittal", "coronal", "axial"]; // across x, y, z
// As in the overlays: apart for colour-blind readers, and one is filled, the other an outline.
const COLOURS = { mask: [255, 176, 0], reference: [53, 208, 255] };
const ZOOMS = ["1", "2", "4", "8"];
const WIDE = 640; // pixels, for planes beside each other
const CROSSHAIR = 0.6; // mm
const SAMPLES = 100_000; // voxels that a scan's window is found by
const LUNG_SHARE = 0.15; // of the body
const OPACITY = { mask: 0.45, reference: 1 };

let current = null; // one WebGL context at a time

// files: { scan, mask, reference }, each a File or null; the scan there must be.
// lesion: its label in the masks; words: what is seen
export async function showScene(stage, files, lesion, words) {
  await loadNiivue();
  drop();
  const canvas = el("canvas", { "aria-label": words, role: "img" });
  const frame = el("div", { class: "frame" }, canvas);
  stage.replaceChildren(frame);
  const scene = new niivue.Niivue({
    dragAndDropEnabled: false,
    isNearestInterpolation: true,
    isRadiologicalConvention: true,
    logLevel: "error",
    multiplanarShowRender: niivue.SHOW_RENDER.NEVER,
    backColor: [0, 0, 0, 1],
    crosshairColor: [1, 1, 1, 0.4],
    crosshairWidth: CROSSHAIR,
    crosshairWidthUnit: "mm",
    crosshairGap: 8,
    multiplanarLayout: niivue.MULTIPLANAR_TYPE[stage.clientWidth > WIDE ? "ROW" : "AUTO"],
    multiplanarPadPixels: 4,
  });
  current = scene;
  await scene.attachToCanvas(canvas);
  for (const [name, [r, g, b]] of Object.entries(COLOURS)) {
    scene.addColormap(name, { R: [0, r], G: [0, g], B: [0, b], A: [0, 255], I: [0, 255] });
  }
  const scan = await read("scan", files.scan, { colormap: "gray" });
  const window = fitting(scan);
  [scan.cal_min, scan.cal_max] = WINDOWS_HU[window];
  scene.addVolume(scan);
  const masks = [];
  for (const role of ["mask", "reference"]) {
    if (files[role]) masks.push(await addMask(scene, role, files[role], lesion));
  }
  if (scene !== current) return;
  lookAt(scene, masks.toReversed());
  stage.append(controls(scene, masks, window));
  scene.drawScene();
  new ResizeObserver(() => titles(scene, frame)).observe(frame);
}

// The names of the planes, each above its own.
function titles(scene, frame) {
  const ratio = scene.uiData.dpr;
  frame.querySelectorAll(".plane").forEach((one) => one.remove());
  frame.append(...scene.screenSlices.map(({ axCorSag, leftTopWidthHeight: [left, top] }) => {
    const title = el("span", { class: "plane" }, PLANES.toReversed()[axCorSag]);
    Object.assign(title.style, { left: `${left / ratio}px`, top: `${top / ratio}px` });
    return title;
  }));
}

// The window for what a scan is mostly of: of a chest, much of the body is air in tissue.
function fitting({ img, hdr }) {
  const step = Math.max(1, Math.floor(img.length / SAMPLES));
  let [body, lung] = [0, 0];
  for (let i = 0; i < img.length; i += step) {
    const hu = img[i] * (hdr.scl_slope || 1) + hdr.scl_inter;
    if (hu > -950) body += 1;
    if (hu > -950 && hu < -550) lung += 1;
  }
  return lung > LUNG_SHARE * body ? "lung" : "soft tissue";
}

async function addMask(scene, role, file, lesion) {
  const volume = await read(role, file, {
    colormap: role, cal_min: 0, cal_max: 1, opacity: OPACITY[role] });
  keepOnly(volume.img, lesion);
  const middle = widest(volume.img2RAS(), volume.dimsRAS.slice(1, 4));
  if (role === "reference") outline(volume.img, volume.hdr.dims.slice(1, 4));
  scene.addVolume(volume);
  return { role, volume, middle };
}

async function read(role, file, options) {
  try {
    return await niivue.NVImage.loadFromFile({ file, name: file.name, ...options });
  } catch {
    throw new Error(`${file.name}: cannot be read as the ${role}; it must be a NIfTI file.`);
  }
}

// Where the first of the masks that holds anything is widest.
function lookAt(scene, masks) {
  const found = masks.find(({ middle }) => middle);
  if (!found) return;
  scene.scene.crosshairPos = scene.vox2frac(found.middle, scene.volumes.indexOf(found.volume));
}

function controls(scene, masks, window) {
  const size = scene.volumes[0].dimsRAS.slice(1, 4);
  const sliders = PLANES.map((plane, axis) => slider(scene, plane, axis, size[axis])).reverse();
  scene.onLocationChange = () => sliders.forEach(({ update }) => update());
  const value = el("output", { class: "hu" });
  scene.canvas.addEventListener("mousemove", (event) => { value.textContent = under(scene, event); });
  const planes = (name) => {
    scene.setSliceType({
      all: scene.sliceTypeMultiplanar,
      axial: scene.sliceTypeAxial,
      coronal: scene.sliceTypeCoronal,
      sagittal: scene.sliceTypeSagittal,
    }[name]);
    titles(scene, scene.canvas.parentElement);
  };
  return el("div", { class: "controls" },
    sliders.map(({ node }) => node),
    el("span", { class: "field" }, "under the cursor ", value),
    select("Window", Object.keys(WINDOWS_HU), (name) => {
      [scene.volumes[0].cal_min, scene.volumes[0].cal_max] = WINDOWS_HU[name];
      scene.updateGLVolume();
    }, window),
    select("Planes", ["all", ...PLANES.toReversed()], planes),
    select("Zoom", ZOOMS, (times) => zoom(scene, Number(times))),
    toggle("crosshair", "", (on) => {
      scene.setCrosshairWidth(on ? CROSSHAIR : 0);
    }),
    masks.map(({ role, volume }) => overlayControls(scene, role, volume)));
}

// The scan's value under a mouse, or nothing beside it.
function under(scene, { offsetX, offsetY }) {
  const at = scene.canvasPos2frac([offsetX, offsetY].map((one) => one * scene.uiData.dpr));
  if (at[0] < 0) return "";
  return `${Math.round(scene.volumes[0].getValue(...scene.frac2vox(at)))} HU`;
}

// A mask's switch, and how much of the scan is seen through it.
function overlayControls(scene, role, volume) {
  let [on, opacity] = [true, OPACITY[role]];
  const show = () => scene.setOpacity(scene.volumes.indexOf(volume), on ? opacity : 0);
  const id = newId("opacity");
  return [
    toggle(role === "mask" ? "mask (filled)" : "reference (outline)", role, (now) => { on = now; show(); }),
    el("span", { class: "field" }, el("label", { for: id }, `opacity of the ${role}`),
      el("input", { id, type: "range", min: 0.1, max: 1, step: 0.05, value: opacity,
        oninput: (event) => { opacity = Number(event.target.value); show(); } })),
  ];
}

// What the crosshair is at stays where it is.
function zoom(scene, times) {
  const [x, y, z, before] = scene.scene.pan2Dxyzmm;
  const at = scene.frac2mm(scene.scene.crosshairPos);
  scene.setPan2Dxyzmm([x, y, z].map((pan, axis) => pan + (before - times) * at[axis]).concat(times));
}

function slider(scene, plane, axis, size) {
  const id = newId("slice");
  const input = el("input", { id, type: "range", min: 0, max: size - 1, step: 1 });
  const said = el("output", { for: id });
  const update = () => {
    const slice = Math.round(scene.frac2vox(scene.scene.crosshairPos)[axis]);
    input.value = slice;
    said.textContent = `${slice + 1} of ${size}`;
  };
  input.addEventListener("input", () => {
    const at = scene.frac2vox(scene.scene.crosshairPos);
    at[axis] = Number(input.value);
    scene.scene.crosshairPos = scene.vox2frac(at);
    scene.drawScene();
    update();
  });
  update();
  return { update, node: el("span", { class: "field" }, el("label", { for: id }, plane), input, said) };
}

function select(label, names, choose, first = names[0]) {
  const id = newId("choice");
  return el("span", { class: "field" }, el("label", { for: id }, label),
    el("select", { id, onchange: (event) => choose(event.target.value) },
      names.map((name) => el("option", { value: name, selected: name === first }, name))));
}

function toggle(words, kind, choose) {
  return el("label", { class: `choice ${kind}` },
    el("input", { type: "checkbox", checked: true, onchange: (event) => choose(event.target.checked) }),
    words);
}

function drop() {
  if (!current) return;
  current.cleanup();
  current.gl?.getExtension("WEBGL_lose_context")?.loseContext();
  current = null;
}

// Its script is allowed by its hash, as the page's own is.
async function loadNiivue() {
  if (globalThis.niivue) return;
  const script = el("script");
  script.textContent = await unzip("viewer-script");
  document.head.append(script);
}
