// Arithmetic on masks: voxels in a flat array, the first axis fastest, of the size [nx, ny, nz].

// Makes, in place, 1 of a label and 0 of all others.
export function keepOnly(voxels, label) {
  for (let i = 0; i < voxels.length; i += 1) voxels[i] = voxels[i] === label ? 1 : 0;
}

// The slice of each axis that cuts most of the mask, or null where it is empty.
export function widest(voxels, [nx, ny, nz]) {
  const counts = [nx, ny, nz].map((size) => new Uint32Array(size));
  let any = false;
  for (let z = 0, i = 0; z < nz; z += 1) {
    for (let y = 0; y < ny; y += 1) {
      for (let x = 0; x < nx; x += 1, i += 1) {
        if (!voxels[i]) continue;
        any = true;
        counts[0][x] += 1;
        counts[1][y] += 1;
        counts[2][z] += 1;
      }
    }
  }
  return any ? counts.map((count) => count.indexOf(Math.max(...count))) : null;
}

// Empties, in place, every voxel whose six neighbours are all in the mask: what is left is a shell.
export function outline(voxels, [nx, ny, nz]) {
  const steps = [1, nx, nx * ny];
  const inside = [];
  for (let z = 1; z < nz - 1; z += 1) {
    for (let y = 1; y < ny - 1; y += 1) {
      for (let x = 1, i = z * steps[2] + y * nx + 1; x < nx - 1; x += 1, i += 1) {
        if (voxels[i] && steps.every((step) => voxels[i - step] && voxels[i + step])) inside.push(i);
      }
    }
  }
  for (const i of inside) voxels[i] = 0;
}
