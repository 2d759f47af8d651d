// Numbers and times as a reader wants them.

export const dash = "–";

export function number(value, digits = 3) {
  if (value === null || value === undefined) return dash;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6) return `${trim(value / 1e6, digits)} M`;
  if (size >= 1e4) return `${trim(value / 1e3, digits)} k`;
  if (size >= 100) return Math.round(value).toString();
  return trim(value, digits);
}

function trim(value, digits) {
  return Number(value.toPrecision(digits)).toString();
}

export function seconds(value) {
  if (value === null || value === undefined) return dash;
  const size = Math.abs(value);
  if (size < 0.0005) return "0";
  if (size < 1) return `${trim(value * 1000, size < 0.1 ? 2 : 3)} ms`;
  if (size < 100) return `${value.toFixed(1)} s`;
  if (size < 6000) return `${(value / 60).toFixed(1)} min`;
  return `${(value / 3600).toFixed(1)} h`;
}

// With one decimal, whatever the size: what moves all the time keeps its width.
export function slack(value) {
  if (value === null || value === undefined) return dash;
  const size = Math.abs(value);
  const text = size < 100 ? `${size.toFixed(1)} s` : size < 6000 ? `${(size / 60).toFixed(1)} min` : `${(size / 3600).toFixed(1)} h`;
  return `${value < 0 ? "−" : "+"}${text}`;
}

// The mean of the last seconds of a curve.
export function lately(history, of, points = 5) {
  const values = history.slice(-points).map(of).filter((value) => value !== null && value !== undefined);
  return values.length ? values.reduce((sum, value) => sum + value, 0) / values.length : null;
}

export function watts(value) {
  if (value === null || value === undefined) return dash;
  return value >= 10000 ? `${(value / 1000).toFixed(1)} kW` : `${Math.round(value)} W`;
}

export function percent(share) {
  return share === null || share === undefined ? dash : `${Math.round(share * 100)} %`;
}

export function degrees(value) {
  return value === null || value === undefined ? dash : `${Math.round(value)} °C`;
}

export function joules(value) {
  if (value === null || value === undefined) return dash;
  return value >= 10000 ? `${(value / 1000).toFixed(1)} kJ` : `${trim(value, 3)} J`;
}

export function clock(at_s) {
  return new Date(at_s * 1000).toLocaleTimeString([], { hour12: false });
}

export function short(id) {
  return id.slice(0, 8);
}

// The colour of an SLO class is its place among all of them.
export function colours(state) {
  const names = (state?.classes || []).map((one) => one.name);
  return (name) => {
    const at = names.indexOf(name);
    return `c${at < 0 ? 6 : at % 6}`;
  };
}
