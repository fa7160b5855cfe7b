// What the file holds: the overview at once, details of a team when they are asked for.

export const overview = JSON.parse(document.getElementById("overview").textContent);
export const metrics = overview.metrics.filter((metric) =>
  overview.teams.some((team) => metric.column in team.figures),
);

const opened = new Map();

// What names lead to; a team or a case may be called as something that every object has.
function byName(content) {
  return Object.setPrototypeOf(content, null);
}

// Teams know their places where there is a ranking.
if (overview.standings) {
  const { teams, places, scores, figures, unranked, profile } = overview.standings;
  const own = places[profile.method];
  byName(unranked);
  for (const team of overview.teams) {
    const at = teams.indexOf(team.name);
    team.unranked = unranked[team.name];
    if (at < 0) continue;
    const tied = own.filter((place) => place === own[at]).length > 1;
    Object.assign(team, { place: own[at], score: scores[at], ranked: figures[at], tied });
  }
}

// A team's place in the overview, or -1.
export function teamIndex(name) {
  return overview.teams.findIndex((team) => team.name === name);
}

// { rows, logs, curves }: a row is a case, with its team's name and the columns' values.
export function details(index) {
  if (!opened.has(index)) opened.set(index, open(index));
  return opened.get(index);
}

async function open(index) {
  const content = JSON.parse(await unzip(`team-${index}`));
  const names = Object.keys(content.columns);
  const team = overview.teams[index].name;
  const rows = content.columns.case.map((_, i) => {
    const row = { team };
    for (const name of names) row[name] = content.columns[name][i];
    return row;
  });
  return { rows, logs: byName(content.logs), curves: byName(content.curves) };
}

export async function allRows() {
  const all = await Promise.all(overview.teams.map((_, index) => details(index)));
  return all.flatMap((one) => one.rows);
}

export function overlayUrl(team, picture) {
  const block = document.getElementById(`overlay-${team}-${picture}`);
  return `data:image/webp;base64,${block.textContent}`;
}

// The text of a block that Python's `zipped` made.
export async function unzip(id) {
  const packed = atob(document.getElementById(id).textContent);
  const bytes = Uint8Array.from(packed, (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Response(stream).text();
}

// Drawn first to last: by place where there is one, else by the first metric.
export function teamsInOrder() {
  const [metric] = metrics;
  const sign = metric?.is_higher_better ? -1 : 1;
  const key = (team) => [
    team.place ?? Infinity,
    sign * (team.figures[metric?.column]?.mean ?? -sign * Infinity),
  ];
  return [...overview.teams].sort((a, b) => {
    const [left, right] = [key(a), key(b)];
    return left[0] - right[0] || left[1] - right[1] || (a.name < b.name ? -1 : 1);
  });
}
