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
    crosshairGap: 8,
    multiplanarLayout: niivue.MULTIPLANAR_TYPE[stage.clientWidth > WIDE ? "ROW" : "AUTO"],
    multiplanarPadPixels: 4,
  });
  current = scene;
  await scene.attachToCanvas(canvas);
  for (const [name, [r, g, b]] of Object.entries(COLOURS)) {
    scene.addColormap(name, { R: [0, r], G: [0, g], B: [0, b], A: [0, 255], I: [0, 255] });
  }
  const [low, high] = WINDOWS_HU["soft tissue"];
  scene.addVolume(await read("scan", files.scan, { colormap: "gray", cal_min: low, cal_max: high }));
  const masks = [];
  for (const role of ["mask", "reference"]) {
    if (files[role]) masks.push(await addMask(scene, role, files[role], lesion));
  }
  if (scene !== current) return;
  lookAt(scene, masks.toReversed());
  stage.append(controls(scene, masks));
  scene.drawScene();
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

function controls(scene, masks) {
  const size = scene.volumes[0].dimsRAS.slice(1, 4);
  const sliders = PLANES.map((plane, axis) => slider(scene, plane, axis, size[axis])).reverse();
  scene.onLocationChange = () => sliders.forEach(({ update }) => update());
  return el("div", { class: "controls" },
    sliders.map(({ node }) => node),
    select("Window", Object.keys(WINDOWS_HU), (name) => {
      [scene.volumes[0].cal_min, scene.volumes[0].cal_max] = WINDOWS_HU[name];
      scene.updateGLVolume();
    }),
    select("Planes", ["all", ...PLANES.toReversed()], (name) => scene.setSliceType({
      all: scene.sliceTypeMultiplanar,
      axial: scene.sliceTypeAxial,
      coronal: scene.sliceTypeCoronal,
      sagittal: scene.sliceTypeSagittal,
    }[name])),
    select("Zoom", ZOOMS, (times) => zoom(scene, Number(times))),
    masks.map(({ role, volume }) => toggle(role, (on) => {
      scene.setOpacity(scene.volumes.indexOf(volume), on ? OPACITY[role] : 0);
    })));
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

function select(label, names, choose) {
  const id = newId("choice");
  return el("span", { class: "field" }, el("label", { for: id }, label),
    el("select", { id, onchange: (event) => choose(event.target.value) },
      names.map((name) => el("option", { value: name }, name))));
}

function toggle(role, choose) {
  const words = role === "mask" ? "mask (filled)" : "reference (outline)";
  return el("label", { class: `choice ${role}` },
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
