// The first page: who is where, and how sure that is.

import { boxPlots } from "./boxplots.js";
import { metrics, overview, teamsInOrder } from "./data.js";
import { el, note, section } from "./dom.js";
import { leaderboard } from "./leaderboard.js";
import { method, standingsSections } from "./standings.js";
import { count, period } from "./words.js";

export function overviewPage() {
  const teams = teamsInOrder();
  const { standings } = overview;
  return [
    el("h1", {}, overview.title),
    el("p", { class: "lead" }, summary(teams)),
    note(forWhom(overview.audience)),
    section("Leaderboard",
      standings ? note(method(standings))
        : note("There is no ranking yet (ranking.json), so these are figures without places."),
      leaderboard(teams, metrics, standings),
      note("Of what is ranked the mean, the place by this alone, and between what 95 % of the resamples have the "
        + "mean; else mean ± standard deviation over cases. A case without a sound mask counts with 0 in DSC, "
        + "NSD and F1, and as a false alarm if it is healthy; time and memory are those of cases that "
        + "went well. Cases in which the machine failed count nowhere. n/a: not measured, or undefined.")),
    standings ? standingsSections(standings) : null,
    metrics.length ? section("Spread over cases", boxPlots(teams, metrics)) : null,
  ];
}

function forWhom({ team, public: isPublic }) {
  if (isPublic) return "For the public: cases are numbered.";
  if (team) return `For ${team}: cases are numbered, and why its own failed is said.`;
  return "For the organisers: this file has the names, pictures and references of test cases, logs and machines. "
    + "The options --public and --team make files without them.";
}

function summary(teams) {
  const ran = teams.filter((team) => team.cases);
  const most = Math.max(0, ...ran.map((team) => team.cases));
  const less = ran.filter((team) => team.cases < most).length;
  const times = ran.flatMap((team) => [team.first, team.last]).sort();
  const when = times.length ? ` Run ${period(times[0], times.at(-1))}.` : "";
  const missing = less
    ? ` ${count(less, "team")} ${less === 1 ? "has" : "have"} results for fewer cases than others.` : "";
  const refused = teams.length - ran.length;
  return `${count(ran.length, "team")}, ${count(most, "case")} each, every one in a container of `
    + `its own.${when}${missing}${refused ? ` Without results: ${count(refused, "team")}.` : ""}`;
}
