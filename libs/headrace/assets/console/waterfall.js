// A request's stages on one time axis.

import { attr, h, keyed, prop, put } from "./dom.js";
import { joules, seconds } from "./format.js";

const ROWS_MAX = 80;
const WAITS = new Set(["queue", "media", "wait", "recover", "evicted"]);

// life: { timeline, received_s, first_token_s, ended_s, now_s, reason, explain } as the gateway tells, or a timeline alone
export function waterfall() {
  const axis = h("div", { class: "axis" }, h("span"), h("span"), h("span"));
  const rows = h("div", { class: "spans" });
  const first = h("div", { class: "first" }, h("span", { text: "first token" }));
  const more = h("p", { class: "soft" });
  const plot = h("div", { class: "plot" }, axis, rows, first);
  const node = h("div", { class: "waterfall" }, plot, more);
  node.hidden = true;
  node.show = (life) => {
    const all = spansOf(life);
    node.hidden = all.length === 0;
    if (!all.length) return;
    const begin = Math.min(...all.map((span) => span.start_s));
    const end = Math.max(...all.map((span) => span.end_s), begin + 1e-4);
    const at = (t) => ((t - begin) / (end - begin)).toFixed(5);
    put(axis.children[0], "0");
    put(axis.children[1], seconds((end - begin) / 2));
    put(axis.children[2], seconds(end - begin));
    const shown = all.slice(0, ROWS_MAX);
    put(more, all.length > shown.length ? `and ${all.length - shown.length} more` : "");
    keyed(rows, shown, (span) => span.key, makeSpan, (item, span) => {
      item.__show(span, at(span.start_s), at(span.end_s));
    });
    const told = life.first_token_s ?? (all.some((span) => span.stage === "decode") ? firstPrefill(all) : null);
    first.hidden = told === null || told === undefined || told < begin || told > end;
    if (!first.hidden) prop(first, "--at", at(told));
    axis.children[1].style.visibility = !first.hidden && Math.abs(at(told) - 0.4) < (plot.clientWidth < 500 ? 0.4 : 0.14) ? "hidden" : "";
    attr(first, "data-side", !first.hidden && (told - begin) / (end - begin) > 0.7 ? "left" : null);
  };
  return node;
}

function firstPrefill(all) {
  const found = all.find((span) => span.stage === "prefill");
  return found ? found.end_s : null;
}

function spansOf(life) {
  const found = (life.timeline || []).filter((span) => span.stage !== "gateway").map((span) => ({ ...span, open: false }));
  found.sort((a, b) => a.start_s - b.start_s || a.part - b.part || a.end_s - b.end_s);
  if (life.now_s && !life.reason && life.explain && !["ended", "unknown"].includes(life.explain.state)) {
    const from = found.length ? Math.max(...found.map((span) => span.end_s)) : life.received_s || life.now_s;
    const at = life.explain.state === "decode" && life.first_token_s ? life.first_token_s : from;
    const stage = life.explain.state === "queued" ? "queue" : life.explain.state;
    if (life.now_s > at) found.push({ stage, start_s: at, end_s: life.now_s, worker: life.explain.worker, part: 0, open: true });
  }
  const many = new Set(found.filter((span) => span.stage === "encode" && span.part).map((span) => span.stage)).size > 0;
  const times = new Map();
  for (const span of found) {
    const name = `${span.stage} ${span.part} ${span.worker}`;
    times.set(name, (times.get(name) || 0) + 1);
    span.key = `${name} ${times.get(name)}`;
    const stage = span.cached ? "cached" : span.stage; // an embedding that was there: nothing was encoded
    span.label = many && ["wait", "preprocess", "encode"].includes(span.stage) ? `${stage} ${span.part + 1}` : stage;
  }
  return found;
}

function makeSpan() {
  const name = h("span", { class: "name" });
  const who = h("small");
  const bar = h("i");
  const took = h("span", { class: "took" });
  const node = h("div", { class: "span" }, h("span", { class: "label" }, name, who), h("span", { class: "track" }, bar), took);
  node.__show = (span, from, to) => {
    put(name, span.label);
    put(who, span.worker || "");
    prop(bar, "--from", from);
    prop(bar, "--till", to);
    const cls = `st-${WAITS.has(span.stage) ? "wait" : span.stage}${span.open ? " open" : ""}`;
    if (bar.className !== cls) bar.className = cls;
    put(took, `${seconds(span.end_s - span.start_s)}${span.open ? " so far" : ""}`);
    attr(node, "title", `${span.label}${span.worker ? ` at ${span.worker}` : ""}${span.joules ? `, ${joules(span.joules)}` : ""}`);
  };
  return node;
}
