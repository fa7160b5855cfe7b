// Shows a case's scan with mask and reference, out of files on the reader's own machine.

import { el, newId, note } from "./dom.js";
import { showScene } from "./scene.js";
import { ROLES, dropped, fetchBeside, find, isServed, put } from "./volumes.js";

const NAMES = {
  scan: (name) => `${name}_0000.nii.gz`,
  mask: (name, team) => `${team}/predictions/${name}.nii.gz`,
  reference: (name) => `${name}.nii.gz, in the folder of labels`,
};

// A region that asks for files and then shows them. lesion: its label in the masks
export function viewer(team, name, lesion) {
  const chosen = find(team, name);
  const stage = el("div", { class: "stage" });
  const said = el("p", { class: "said", role: "status" });
  const list = el("ul", { class: "files" });
  const show = el("button", { type: "button", onclick: () => open() }, "Show");

  function refresh(words = "") {
    list.replaceChildren(...ROLES.map((role) => line(role)));
    show.disabled = !chosen.scan;
    said.textContent = words;
  }

  function line(role) {
    const id = newId("file");
    const pick = (event) => {
      const [file] = event.target.files;
      if (file) chosen[role] = { path: file.name, file };
      refresh();
    };
    return el("li", {},
      el("span", { class: "role" }, role),
      el("span", { class: chosen[role] ? "path" : "path missing" },
        chosen[role]?.path ?? NAMES[role](name, team)),
      el("label", { class: "button", for: id }, chosen[role] ? "Change" : "Choose", el("span",
        { class: "unseen" }, ` the ${role}'s file`)),
      el("input", { id, type: "file", class: "unseen", accept: ".nii,.gz", onchange: pick }));
  }

  function take(files) {
    const volumes = put([...files]);
    const found = find(team, name);
    const missing = ROLES.filter((role) => !found[role]);
    for (const role of ROLES) chosen[role] = found[role] ?? chosen[role];
    refresh(`${volumes} NIfTI files there; `
      + (missing.length ? `none is this case's ${missing.join(" or ")}.` : "this case is complete."));
    if (!missing.length) open();
  }

  async function guarded(words, work) {
    said.textContent = words;
    stage.setAttribute("aria-busy", "true");
    try {
      await work();
    } catch (error) {
      said.textContent = error.message;
    }
    stage.removeAttribute("aria-busy");
  }

  function open() {
    const files = Object.fromEntries(ROLES.map((role) => [role, chosen[role]?.file ?? null]));
    return guarded("Reading …", async () => {
      await showScene(stage, files, lesion, `Scan of ${name} with mask and reference`);
      said.textContent = "";
    });
  }

  function beside() {
    return guarded("Fetching …", async () => {
      Object.assign(chosen, await fetchBeside(team, name));
      refresh(chosen.scan ? "" : "No scan lies in scans/ beside this page.");
      if (chosen.scan) await open();
    });
  }

  const folder = newId("folder");
  const region = el("div", { class: "viewer" },
    note("Open the folder that holds scans, labels and results. Its files stay on this machine. Files "
      + "may also be dropped here."),
    el("div", { class: "controls" },
      el("label", { class: "button primary", for: folder }, "Open a folder"),
      el("input", { id: folder, type: "file", class: "unseen", webkitdirectory: true, multiple: true,
        onchange: (event) => take(event.target.files) }),
      isServed ? el("button", { type: "button", onclick: beside }, "Open from beside this page") : null,
      show),
    list, said, stage);
  region.addEventListener("dragover", (event) => event.preventDefault());
  region.addEventListener("drop", (event) => {
    event.preventDefault();
    guarded("Looking through it …", async () => take(await dropped(event.dataTransfer)));
  });
  refresh();
  if (chosen.scan) open();
  return region;
}
