// What users feel and who works: rates, first tokens by class, pools.

import { chart } from "./chart.js";
import { attr, card, h, keyed, meter, put, table } from "./dom.js";
import { colours, degrees, joules, lately, number, percent, seconds, watts } from "./format.js";

const COMPACT = 24; // workers of a pool: beyond them each takes a small tile

function tile(label) {
  const value = h("strong", { text: "–" });
  const below = h("small", { text: " " });
  const node = h("div", { class: "tile" }, h("span", { text: label }), value, below);
  node.show = (text, more = " ", level = "") => {
    put(value, text);
    put(below, more || " ");
    attr(node, "data-level", level || null);
  };
  return node;
}

export function overview() {
  const tiles = {
    tokens: tile("Tokens a second"),
    requests: tile("Requests a second"),
    first: tile("First token"),
    kept: tile("In time"),
    cell: tile("In the mesh"),
    power: tile("Power"),
  };
  const curves = [
    chart(
      "Tokens a second",
      [
        { name: "generated", of: (p) => p.tokens_s, colour: "--c0", fill: true },
        { name: "prompt", of: (p) => p.prompt_s, colour: "--c1" },
      ],
      (v) => number(v),
    ),
    chart(
      "Time to first token, at this gateway",
      [
        { name: "median", of: (p) => p.p50_s, colour: "--c2" },
        { name: "99 % below", of: (p) => p.p99_s, colour: "--c5" },
      ],
      seconds,
    ),
    chart(
      "Requests",
      [
        { name: "waiting", of: (p) => p.queued, colour: "--c1", fill: true },
        { name: "running", of: (p) => p.running, colour: "--c0" },
      ],
      (v) => number(v),
    ),
    chart(
      "Power of all devices",
      [
        { name: "drawn", of: (p) => p.power_w, colour: "--c2", fill: true },
        { name: "limit", of: (p) => p.limit_w, colour: "--bad", dash: [5, 4] },
      ],
      watts,
    ),
  ];
  let colour = () => "c6";
  const dot = (one, cell) => {
    if (!cell.__dot) {
      cell.__dot = h("i");
      cell.__name = h("span");
      cell.append(cell.__dot, cell.__name);
    }
    cell.__dot.className = `dot ${colour(one.name)}`;
    put(cell.__name, one.name);
  };
  const kept = (one, cell) => {
    if (!cell.__bar) {
      cell.__bar = meter("wide");
      cell.__text = h("span");
      cell.append(cell.__bar, cell.__text);
    }
    cell.__bar.to(one.kept ?? 0, one.kept === null ? "" : one.kept >= 0.95 ? "ok" : one.kept >= 0.8 ? "warn" : "bad");
    put(cell.__text, percent(one.kept));
    attr(cell.__text, "data-level", cell.__bar.dataset.level);
  };
  const classes = table(
    [
      ["class", dot],
      ["waiting", (one) => number(one.queued), "n"],
      ["running", (one) => number(one.running), "n wide-only"],
      ["oldest waits", (one) => (one.queued ? seconds(one.oldest_s) : "–"), "n wide-only"],
      ["a new one would wait", (one) => seconds(one.wait_s), "n wide-only"],
      ["target", (one) => seconds(one.target_s), "n"],
      ["median", (one) => seconds(one.p50_s), "n wide-only"],
      ["99 % below", (one) => seconds(one.p99_s), "n"],
      ["in time", kept, "bar-cell"],
    ],
    { class: "classes-table", empty: "no class" },
  );
  const pools = h("div", { class: "pools" });
  const note = h("p", { class: "soft note" });
  const node = h(
    "div",
    {},
    h("div", { class: "tiles" }, Object.values(tiles)),
    h("div", { class: "charts" }, curves),
    card("Classes", classes, note),
    card("Pools", pools),
  );
  node.gone = () => curves.forEach((one) => one.gone());
  node.show = (state) => {
    colour = colours(state);
    const p = state.point || {};
    const answered = state.classes.reduce((sum, one) => sum + one.answered, 0);
    const inTime = state.classes.reduce((sum, one) => sum + one.answered * (one.kept ?? 0), 0);
    const queued = state.classes.reduce((sum, one) => sum + one.queued, 0);
    const running = state.classes.reduce((sum, one) => sum + one.running, 0);
    const past = state.history;
    const tokens = lately(past, (one) => one.tokens_s);
    const refused = lately(past, (one) => one.refused_s);
    const ended = refused ? `${number(refused, 2)} refused` : `${number(lately(past, (one) => one.ended_s), 2)} ended`;
    tiles.tokens.show(number(tokens), `${number(lately(past, (one) => one.prompt_s))} prompt`);
    tiles.requests.show(number(lately(past, (one) => one.accepted_s), 2), ended, refused ? "warn" : "");
    tiles.first.show(seconds(p.p50_s), p.p99_s === null || p.p99_s === undefined ? " " : `99 % below ${seconds(p.p99_s)}`);
    const share = answered ? inTime / answered : null;
    const level = share === null ? "" : share >= 0.95 ? "ok" : share >= 0.8 ? "warn" : "bad";
    tiles.kept.show(percent(share), `of ${number(answered)} in a minute`, level);
    tiles.cell.show(`${number(running)} running`, `${number(queued)} waiting`);
    const perToken = p.power_w && tokens ? `${joules(p.power_w / tokens)} a token` : degrees(p.hottest_c);
    tiles.power.show(watts(p.power_w), p.limit_w ? `of ${watts(p.limit_w)}` : perToken, over(p));
    curves.forEach((one) => one.show(state.history));
    classes.show(state.classes, (one) => one.name);
    put(note, `First tokens are those that ${state.gateway} has seen in the last minute; all else is of the whole mesh.`);
    showPools(pools, state);
  };
  return node;
}

function over(p) {
  return p.limit_w && p.power_w > p.limit_w * 1.01 ? "bad" : "";
}

function showPools(pools, state) {
  const by = new Map();
  for (const one of state.workers) {
    const name = one.stages.join(" + ");
    if (!by.has(name)) by.set(name, []);
    by.get(name).push(one);
  }
  const scaled = new Map((state.scaling?.pools || []).map((pool) => [pool.pool.replaceAll("+", " + "), pool]));
  keyed(pools, [...by].sort(), ([name]) => name, makePool, (node, [name, workers]) => {
    node.__show(name, workers, scaled.get(name), state.scaling);
  });
}

function makePool() {
  const title = h("h3");
  const about = h("span", { class: "soft" });
  const grid = h("div", { class: "workers" });
  const node = h("section", { class: "pool" }, h("header", {}, title, about), grid);
  node.__show = (name, workers, scaled, scaling) => {
    const used = workers.reduce((sum, one) => sum + one.used, 0);
    const slots = workers.reduce((sum, one) => sum + one.slots, 0);
    const tokens = workers.reduce((sum, one) => sum + (one.tokens_s || 0), 0);
    const parts = workers.reduce((sum, one) => sum + (one.parts_s || 0), 0);
    const does = name === "encode" ? `${number(parts)} parts/s` : `${used} of ${slots} slots, ${number(tokens)} tokens/s`;
    const target = scaled ? `, ${scaled.target} wanted (${scaled.least} to ${scaled.most}, ${scaling.policy})` : "";
    put(title, name);
    put(about, `${workers.length} ${workers.length === 1 ? "worker" : "workers"}${target}: ${does}`);
    attr(grid, "data-compact", workers.length > COMPACT);
    keyed(grid, workers, (one) => one.id, makeWorker, (tileNode, one) => tileNode.__show(one));
  };
  return node;
}

function makeWorker() {
  const name = h("b");
  const state = h("span", { class: "state" });
  const slots = meter();
  const blocks = meter("thin");
  const text = h("small");
  const node = h("div", { class: "worker" }, h("div", { class: "row" }, name, state), slots, blocks, text);
  node.__show = (one) => {
    const device = one.devices[0];
    const busy = device?.busy ?? null;
    const encodes = one.stages.length === 1 && one.stages[0] === "encode";
    put(name, one.id);
    const word = one.loading
      ? `loading ${one.loading}`
      : one.draining
        ? "draining"
        : one.silent
          ? "silent"
          : one.role && one.role !== "both"
            ? `as ${one.role}`
            : one.weight < 0.5
              ? "spared"
              : "";
    put(state, word);
    attr(node, "data-level", one.silent || one.draining ? "warn" : null);
    slots.to(encodes ? busy : one.slots ? one.used / one.slots : 0);
    blocks.to(one.blocks ? one.blocks_used / one.blocks : 0);
    attr(blocks, "hidden", encodes);
    const load = encodes
      ? busy === null
        ? `${number(one.media)} media tokens wait`
        : `${percent(busy)} busy, ${number(one.media)} tokens wait`
      : `${one.used}/${one.slots} slots, ${percent(one.blocks ? one.blocks_used / one.blocks : 0)} KV`;
    put(text, load);
    attr(node, "title", `${one.id}: ${load}${device?.power_w ? `, ${watts(device.power_w)}` : ""}`);
  };
  return node;
}
