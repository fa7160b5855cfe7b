// How numbers, states and dates are written.

export const NOT_MEASURED = "n/a";

const STATES = {
  ok: "ok",
  nonzero_exit: "crashed",
  timeout: "timeout",
  oom_ram: "out of RAM",
  oom_vram: "out of VRAM",
  no_output: "no mask",
  bad_output: "bad mask",
  infra_error: "machine failed",
};

export function stateName(state) {
  return STATES[state] ?? state;
}

export function fixed(value, decimals) {
  if (value === null || value === undefined) return NOT_MEASURED;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
    useGrouping: Math.abs(value) >= 10000,
  });
}

export function metricText(metric, value, decimals = metric.decimals) {
  return fixed(value === null || value === undefined ? value : value * metric.factor, decimals);
}

export function withUnit(metric) {
  return metric.unit ? `${metric.label} (${metric.unit})` : metric.label;
}

export function count(number, noun) {
  return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

export function percent(share) {
  return `${fixed(100 * share, share > 0 && share < 0.1 ? 1 : 0)} %`;
}

export function day(time) {
  return time.slice(0, 10);
}

// first, last: time stamps
export function period(first, last) {
  return day(first) === day(last) ? `on ${day(first)}` : `from ${day(first)} to ${day(last)}`;
}
