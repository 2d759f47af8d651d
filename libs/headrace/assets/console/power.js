// Rows against their limits, devices against their caps and heat, and who gave way and why.

import { chart } from "./chart.js";
import { attr, card, h, keyed, meter, prop, put, table } from "./dom.js";
import { clock, dash, degrees, number, percent, watts } from "./format.js";

const HOT_C = 85; // where a bar of temperatures ends
const WARM_C = 77;

export function power() {
  const mode = h("p", { class: "soft note" });
  const rows = h("div", { class: "rows" });
  const curve = chart(
    "Power of all devices",
    [
      { name: "drawn", of: (p) => p.power_w, colour: "--c2", fill: true },
      { name: "limit", of: (p) => p.limit_w, colour: "--bad", dash: [5, 4] },
    ],
    watts,
  );
  const heat = chart("Hottest device", [{ name: "hottest", of: (p) => p.hottest_c, colour: "--c5" }], degrees, { most: 60 });
  const bar = (of) => (one, cell) => {
    if (!cell.__bar) {
      cell.__bar = meter("wide");
      cell.__text = h("span");
      cell.append(cell.__bar, cell.__text);
    }
    const [share, level, text, mark] = of(one);
    cell.__bar.to(share, level);
    prop(cell.__bar, "--mark", mark === undefined || mark === null ? -1 : Math.min(1, mark).toFixed(3));
    put(cell.__text, text);
  };
  const devices = table(
    [
      ["device", (one) => one.name],
      ["power, cap", bar((one) => {
        const most = one.most_w || one.full_w || one.power_w || 1;
        const over = one.cap_w && one.power_w > one.cap_w * 1.08;
        return [one.power_w / most, over ? "warn" : "power", `${watts(one.power_w)}${one.cap_w ? ` of ${Math.round(one.cap_w)}` : ""}`, one.cap_w ? one.cap_w / most : null];
      }), "bar-cell"],
      ["temperature", bar((one) => [one.temp_c === null ? 0 : (one.temp_c - 20) / (HOT_C - 20), one.temp_c >= HOT_C - 3 ? "bad" : one.temp_c >= WARM_C ? "warn" : "heat", degrees(one.temp_c)]), "bar-cell"],
      ["speed", (one) => percent(one.speed), "n"],
      ["busy", (one) => percent(one.busy), "n wide-only"],
      ["why", (one) => one.why || one.unreadable || "", "wide-only soft"],
    ],
    { class: "devices", empty: "no worker reports a device" },
  );
  const gaveWay = h("div", { class: "reasons" });
  const none = h("p", { class: "soft", text: "Nobody gives way: no limit is near." });
  const stages = table(
    [
      ["stage", (one) => one.stage],
      ["budget", (one) => watts(one.budget_w), "n"],
      ["at full speed", (one) => watts(one.demand_w), "n"],
      ["instances", (one) => (one.move ? `${one.move > 0 ? "+" : ""}${one.move}` : dash), "n"],
    ],
    { empty: "no stage has a budget" },
  );
  const actions = table(
    [
      ["at", (one) => clock(one.at_s)],
      ["what", (one) => one.action],
      ["of", (one) => one.subject, "wide-only"],
      ["change", (one) => (one.before === one.after ? dash : `${number(one.before)} → ${number(one.after)}`), "n"],
      ["why", (one) => one.reason, "soft"],
    ],
    { empty: "the governor has done nothing so far" },
  );
  const notes = h("ul", { class: "notes soft" });
  const node = h(
    "div",
    {},
    card("Rows", mode, rows),
    h("div", { class: "charts" }, curve, heat),
    h("div", { class: "two" }, card("Who gives way", gaveWay, none), card("Stages", stages)),
    card("Devices", devices),
    card("What the governor did", h("div", { class: "tall" }, actions)),
    notes,
  );
  node.show = (state) => {
    const hold = [...new Set(state.rows.flatMap((row) => row.emergencies))];
    put(mode, `The governor ${state.mode ? `is in mode ${state.mode}` : "has not been heard"}${hold.length ? `; emergency: ${hold.join(", ")}` : ""}.`);
    const most = new Map(state.workers.map((worker) => [worker.id, worker.devices.reduce((sum, one) => sum + (one.most_w || 0) * one.gpus, 0)]));
    keyed(rows, state.rows, (row) => row.row, makeRow, (item, row) => item.__show(row, row.workers.reduce((sum, id) => sum + (most.get(id) || 0), 0)));
    curve.show(state.history);
    heat.show(state.history);
    const found = state.workers.flatMap((worker) =>
      worker.devices.map((device) => ({ ...device, key: `${worker.id}/${device.name}`, name: worker.devices.length > 1 ? `${worker.id} ${device.name}` : worker.id })),
    );
    devices.show(found, (one) => one.key);
    const why = new Map();
    for (const one of found) if (one.why) why.set(one.why, [...(why.get(one.why) || []), one]);
    none.hidden = why.size > 0;
    keyed(gaveWay, [...why], ([reason]) => reason, () => h("div", {}, h("b"), h("span", { class: "soft" })), (item, [reason, all]) => {
      put(item.firstChild, reason);
      const names = all.slice(0, 6).map((one) => one.name).join(", ");
      const caps = all.map((one) => one.cap_w).filter((cap) => cap);
      const [low, high] = [Math.round(Math.min(...caps)), Math.round(Math.max(...caps))];
      const told = caps.length ? ` at ${low === high ? low : `${low} to ${high}`} W` : "";
      put(item.lastChild, `${names}${all.length > 6 ? ` and ${all.length - 6} more` : ""}${told}`);
    });
    stages.show(state.stages, (one) => one.stage);
    actions.show(state.actions.slice(0, 40), (one) => one.key);
    keyed(notes, state.notes.slice(0, 20), (text) => text, () => h("li"), (item, text) => put(item, text));
  };
  node.gone = () => [curve, heat].forEach((one) => one.gone());
  return node;
}

// What is drawn, on a scale up to the largest of what may be drawn; marks for limit, budget and least.
function makeRow() {
  const name = h("b");
  const said = h("span", { class: "soft" });
  const fill = h("i", { class: "drawn" });
  const marks = { limit: h("i", { class: "mark limit", title: "limit" }), least: h("i", { class: "mark least", title: "least that caps can reach" }) };
  const track = h("div", { class: "bullet" }, fill, marks.least, marks.limit);
  const below = h("small", { class: "soft" });
  const node = h("div", { class: "power-row" }, h("div", { class: "row" }, name, said), track, below);
  node.__show = (row, most) => {
    const scale = Math.max(row.limit_w || 0, row.power_w || 0, row.least_w || 0, most, 1) * 1.04;
    const over = row.limit_w && row.power_w > row.limit_w * 1.01;
    put(name, row.row);
    put(said, `${watts(row.power_w)}${row.limit_w ? ` of ${watts(row.limit_w)}` : ", no limit"}`);
    prop(track, "--to", ((row.power_w || 0) / scale).toFixed(4));
    attr(track, "data-level", over ? "bad" : row.emergencies.length ? "warn" : null);
    prop(marks.limit, "--at", row.limit_w ? (row.limit_w / scale).toFixed(4) : -1);
    prop(marks.least, "--at", row.least_w ? (row.least_w / scale).toFixed(4) : -1);
    const parts = [`${row.workers.length} workers`, `${watts(row.least_w)} at least`, `${watts(most)} at most`];
    if (row.budget_w) parts.push(`budget ${watts(row.budget_w)}`);
    if (row.emergencies.length) parts.push(`emergency: ${row.emergencies.join(", ")}`);
    if (row.air !== null) parts.push(`air ${number(row.air)}${row.air_limit ? ` of ${number(row.air_limit)}` : ""} m³/s`);
    put(below, parts.join(" · "));
  };
  return node;
}
