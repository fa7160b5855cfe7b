// Which files are a case's scan, mask and reference: out of a folder that somebody opened, of files
// that were dropped, or beside a page that a server hands out.

export const ROLES = ["scan", "mask", "reference"];
const ENDING = /\.nii(\.gz)?$/;

const shelf = new Map(); // by path, whatever was opened since the page was

export function put(files) {
  const volumes = files.filter((file) => ENDING.test(file.name));
  for (const file of volumes) shelf.set(file.webkitRelativePath || file.name, file);
  return volumes.length;
}

// { scan, mask, reference }, each { path, file } or null, by the names of the harness:
// CASE_0000.nii.gz; TEAM/predictions/CASE.nii.gz; CASE.nii.gz in a folder of another name.
export function find(team, name) {
  const found = { scan: null, mask: null, reference: null };
  for (const [path, file] of shelf) {
    const role = roleOf(path, team, name);
    if (role && !found[role]) found[role] = { path, file };
  }
  return found;
}

export function roleOf(path, team, name) {
  const parts = path.replace(ENDING, "").split("/");
  const stem = parts.pop();
  if (stem === `${name}_0000`) return "scan";
  if (stem !== name) return null;
  if (parts.pop() !== "predictions") return "reference";
  // Above predictions/ is the team, if that much of the path is known.
  return parts.length === 0 || parts.pop() === team ? "mask" : null;
}

// Everything in what was dropped, folders included.
export async function dropped(transfer) {
  const entries = [...transfer.items].map((item) => item.webkitGetAsEntry?.()).filter(Boolean);
  if (!entries.some((entry) => entry.isDirectory)) return [...transfer.files];
  return (await Promise.all(entries.map(filesOf))).flat();
}

async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => entry.file(resolve, reject));
    Object.defineProperty(file, "webkitRelativePath", { value: entry.fullPath.slice(1) });
    return [file];
  }
  const reader = entry.createReader();
  const inside = [];
  for (;;) {
    const some = await new Promise((resolve, reject) => reader.readEntries(resolve, reject));
    if (!some.length) return (await Promise.all(inside.map(filesOf))).flat();
    inside.push(...some);
  }
}

export const isServed = location.protocol.startsWith("http");

// Fetches what lies beside the page, from the server that it came from.
export async function fetchBeside(team, name) {
  const paths = {
    scan: ["scans", `${name}_0000.nii.gz`],
    mask: [team, "predictions", `${name}.nii.gz`],
    reference: ["labels", `${name}.nii.gz`],
  };
  const fetched = await Promise.all(Object.values(paths).map(async (parts) => {
    const answer = await fetch(parts.map(encodeURIComponent).join("/"));
    if (!answer.ok) return null;
    const file = new File([await answer.blob()], parts.at(-1));
    return { path: parts.join("/"), file };
  }));
  return Object.fromEntries(ROLES.map((role, i) => [role, fetched[i]]));
}
