// The virtual queues as they move: a row for each instance, a block for each group, first to last from the left.
//
// Blocks lie in one layer over all rows, each at a place of its own: a group that goes to another place, or another
// instance, glides there. How many there are is bounded by the gateway; what is left out is told as a number.

import { attr, h, keyed, prop, put } from "./dom.js";
import { colours, dash, number, seconds, slack } from "./format.js";

const ROW = 46;
const GAP = 4;
const LEAST = 34;
const MOST = 128;
const BESIDE = 3; // rows beyond what can be seen
const MARKS = [{ name: "late", mark: true }, { name: "evicted", mark: true }];

export function queues() {
  const about = h("p", { class: "soft note" });
  const legend = h("p", { class: "legend classes" });
  const labels = h("div", { class: "lanes-labels" });
  const layer = h("div", { class: "lanes-layer", role: "group", "aria-label": "Request groups; arrow keys go from one to the next" });
  const board = h("div", { class: "lanes" }, labels, h("div", { class: "lanes-scroll" }, layer));
  const detail = h("div", { class: "card detail" });
  const operations = h("dl", { class: "facts" });
  const flows = h("div");
  const planner = h("p", { class: "soft note" });
  const node = h(
    "div",
    {},
    h("section", { class: "card" }, h("h2", { text: "Virtual queues" }), about, legend, board),
    h("div", { class: "two" }, detail, h("section", { class: "card" }, h("h2", { text: "Operations so far" }), operations, planner)),
    h("section", { class: "card" }, h("h2", { text: "Shares" }), flows),
  );
  let chosen = null;
  let blocks = new Map();
  let state = null;

  const choose = (id) => {
    chosen = id;
    for (const [each, block] of blocks) {
      block.__now = "";
      attr(block, "aria-pressed", each === id ? "true" : "false");
    }
    showDetail(detail, state, chosen);
  };

  layer.addEventListener("focusin", (event) => event.target.dataset.id && choose(Number(event.target.dataset.id)));
  layer.addEventListener("keydown", (event) => {
    const step = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowDown: [0, 1], ArrowUp: [0, -1] }[event.key];
    const at = event.target.closest?.("button");
    if (!step || !at) return;
    event.preventDefault();
    const [row, place] = [Number(at.dataset.row), Number(at.dataset.place)];
    const all = [...blocks.values()];
    const rows = [...new Set(all.map((each) => Number(each.dataset.row)))].sort((a, b) => a - b);
    const nextRow = step[1] ? rows[rows.indexOf(row) + step[1]] : row;
    const within = all.filter((each) => Number(each.dataset.row) === nextRow);
    const wanted = step[1] ? place : place + step[0];
    const next = within.find((each) => Number(each.dataset.place) === wanted) || (step[1] ? within[within.length - 1] : null);
    if (!next) return;
    at.tabIndex = -1;
    next.tabIndex = 0;
    next.focus();
  });

  const make = (one) => {
    const count = h("b");
    const slack = h("small");
    const button = h("button", { type: "button", tabindex: "-1", "data-id": one.group.id, onclick: () => choose(one.group.id) }, count, slack);
    button.__count = count;
    button.__slack = slack;
    return button;
  };

  const place = (button, one) => {
    const { group } = one;
    const now = `${one.x} ${one.row} ${one.wide} ${one.place} ${one.colour} ${group.waiting} ${group.evicted} ${one.slack?.toFixed(1)} ${group.id === chosen}`;
    if (button.__now === now) return;
    button.__now = now;
    prop(button, "--x", `${one.x}px`);
    prop(button, "--y", `${one.row * ROW}px`);
    prop(button, "--w", `${one.wide}px`);
    attr(button, "data-row", one.row);
    attr(button, "data-place", one.place);
    const left = one.slack;
    const late = left !== null && left < 0;
    const cls = `block ${one.colour}${late ? " late" : ""}${group.evicted ? " evicted" : ""}`;
    if (button.className !== cls) button.className = cls;
    put(button.__count, number(group.waiting));
    put(button.__slack, slack(left));
    attr(button, "aria-label", `group ${group.id}, ${group.class}, ${group.waiting} waiting, ${late ? "late by" : "slack"} ${seconds(Math.abs(left ?? 0))}`);
    attr(button, "aria-pressed", group.id === chosen ? "true" : "false");
  };

  // Rows that can be seen, and a few above and below: a thousand groups are some hundred blocks.
  const inSight = (count) => {
    const box = layer.getBoundingClientRect();
    const first = Math.floor(-box.top / ROW) - BESIDE;
    return [Math.max(0, first), Math.min(count, first + Math.ceil(window.innerHeight / ROW) + 2 * BESIDE)];
  };
  let scrolled = false;
  window.addEventListener("scroll", () => {
    if (scrolled || !state || !node.isConnected) return;
    scrolled = true;
    requestAnimationFrame(() => {
      scrolled = false;
      node.show(state);
    });
  }, { passive: true });

  node.show = (now) => {
    state = now;
    const colour = colours(state);
    const rows = lanes(state);
    const groups = rows.reduce((sum, lane) => sum + lane.groups.length + lane.more, 0);
    const waiting = rows.reduce((sum, lane) => sum + lane.groups.reduce((n, g) => n + g.waiting, 0) + lane.more_waiting, 0);
    put(
      about,
      `${number(waiting)} requests in ${number(groups)} groups, by the ${state.policy || "?"} policy. The number is how many wait; below it, the slack: how much sooner than due its first token is expected.`,
    );
    keyed(legend, [...state.classes, ...MARKS], (one) => one.name, () => h("span", {}, h("i"), h("span")), (item, one) => {
      item.firstChild.className = one.mark ? `swatch c6 ${one.name}` : `swatch ${colour(one.name)}`;
      put(item.lastChild, one.name);
    });
    keyed(labels, rows, (lane) => lane.worker, makeLabel, (label, lane) => label.__show(lane));
    const placed = [];
    let widest = 0;
    const now_s = Date.now() / 1000;
    const [from, to] = inSight(rows.length);
    rows.forEach((lane, row) => {
      let x = 0;
      lane.groups.forEach((group, place) => {
        const wide = Math.round(Math.min(MOST, Math.max(64, LEAST + 7 * Math.sqrt(group.waiting) * 2)));
        const slack = slackOf(group, now_s);
        if (row >= from && row < to) placed.push({ group, row, place, x, wide, slack, colour: colour(group.class) });
        x += wide + GAP;
      });
      lane.end = x;
      widest = Math.max(widest, x + (lane.more ? 120 : 0));
    });
    prop(layer, "--high", `${rows.length * ROW}px`);
    prop(layer, "--wide", `${widest}px`);
    const kept = new Map();
    const rests = rows.map((lane, row) => ({ lane, row })).filter(({ lane, row }) => row >= from && row < to && (lane.more || !lane.groups.length));
    keyed(layer, [...placed, ...rests],
      (one) => (one.lane ? `more ${one.lane.worker}` : one.group.id),
      (one) => (one.lane ? h("span", { class: "rest" }) : make(one)),
      (item, one) => {
        if (one.lane) {
          prop(item, "--x", `${one.lane.end}px`);
          prop(item, "--y", `${one.row * ROW}px`);
          put(item, one.lane.more ? `and ${number(one.lane.more)} groups, ${number(one.lane.more_waiting)} waiting` : "nobody waits");
          return;
        }
        kept.set(one.group.id, item);
        place(item, one);
      }, false);
    blocks = kept;
    const focusable = [...blocks.values()].some((each) => each.tabIndex === 0);
    if (!focusable && blocks.size) blocks.values().next().value.tabIndex = 0;
    showDetail(detail, state, chosen);
    keyed(operations, Object.entries(state.operations).sort(), ([name]) => name, () => h("div", {}, h("dt"), h("dd")), (item, [name, times]) => {
      put(item.firstChild, name.replaceAll("_", " "));
      put(item.lastChild, number(times));
    });
    put(planner, Object.keys(state.operations).length ? "Counted since this leadership began." : "None so far.");
    showFlows(flows, state, colour);
  };
  return node;
}

// One that should have begun by now is expected any moment.
function slackOf(group, now_s) {
  return group.begin_s === null ? null : group.due_s - Math.max(now_s, group.begin_s);
}

// Queues, and the groups that no live worker can serve as one more.
function lanes(state) {
  const by = new Map(state.groups.map((group) => [group.id, group]));
  const all = (ids) => ids.map((id) => by.get(id)).filter(Boolean);
  const found = state.queues.map((one) => ({ ...one, groups: all(one.groups) }));
  if (state.unplaced.length) {
    found.push({ worker: "nobody", model: "no live worker serves these", loading: "", running: 0, slots: 0, usable: 0, speed: 1, groups: all(state.unplaced), more: 0, more_waiting: 0 });
  }
  return found;
}

function makeLabel() {
  const name = h("b");
  const model = h("small");
  const fill = h("i");
  const node = h("div", { class: "lane" }, h("div", { class: "row" }, name, h("span", { class: "meter thin" }, fill)), model);
  node.__show = (lane) => {
    put(name, lane.worker);
    prop(fill.parentNode, "--to", (lane.slots ? lane.running / lane.slots : 0).toFixed(3));
    const capped = lane.speed < 0.995 ? `, at ${Math.round(lane.speed * 100)} %` : "";
    put(model, lane.loading ? `loading ${lane.loading}` : lane.slots ? `${lane.running}/${lane.usable || lane.slots} slots${capped}` : lane.model);
    attr(node, "title", `${lane.worker}: ${lane.model}, ${lane.running} of ${lane.slots} slots`);
  };
  return node;
}

function showDetail(detail, state, chosen) {
  let found = null;
  for (const queue of state ? lanes(state) : []) {
    const at = queue.groups.findIndex((group) => group.id === chosen);
    if (at >= 0) found = { queue, group: queue.groups[at], at };
  }
  if (!detail.__built) {
    detail.__title = h("h2");
    detail.__facts = h("dl", { class: "facts" });
    detail.append(detail.__title, detail.__facts);
    detail.__built = true;
  }
  if (!found) {
    put(detail.__title, chosen === null ? "A group" : `Group ${chosen} is gone`);
    const text = chosen === null ? "Choose a block to see what its requests have in common and what they may expect." : "All of its requests are served, or it has joined another.";
    keyed(detail.__facts, [["", text]], ([name]) => name, () => h("div", { class: "whole" }, h("dd", { class: "soft" })), (item, [, said]) => put(item.lastChild, said));
    return;
  }
  const { queue, group, at } = found;
  put(detail.__title, `Group ${group.id}`);
  const now_s = Date.now() / 1000;
  const due = group.due_s - now_s;
  const facts = [
    ["class", group.class + (group.priority ? ` ${group.priority > 0 ? "+" : ""}${group.priority}` : "")],
    ["each", group.size],
    ["model", group.model],
    ["waiting", number(group.waiting) + (group.evicted ? ", evicted" : "")],
    ["place", `${at + 1} of ${queue.groups.length + queue.more} at ${queue.worker}`],
    ["first token due", due >= 0 ? `in ${seconds(due)}` : `${seconds(-due)} ago`],
    ["expected", group.begin_s === null ? dash : `in ${seconds(Math.max(0, group.begin_s - now_s))}`],
    ["nine of ten within", group.bound_s === null ? dash : seconds(Math.max(0, group.bound_s - now_s))],
    ["answers, in all", `${number(group.tokens)} tokens`],
  ];
  keyed(detail.__facts, facts, ([name]) => name, () => h("div", {}, h("dt"), h("dd")), (item, [name, said]) => {
    if (item.children.length === 1) item.prepend(h("dt"));
    put(item.firstChild, name);
    put(item.lastChild, said);
  });
}

function showFlows(box, state, colour) {
  const most = Math.max(1, ...state.flows.map((flow) => flow.served));
  if (!box.__list) {
    box.__list = h("div", { class: "bars" });
    box.__none = h("p", { class: "soft", text: "Nobody has been served of late." });
    box.append(box.__list, box.__none);
  }
  const shown = state.flows.slice(0, 20);
  box.__none.hidden = shown.length > 0;
  keyed(box.__list, shown, (flow) => `${flow.class} ${flow.flow}`, () => h("div", {}, h("span"), h("span", { class: "meter wide" }, h("i")), h("span", { class: "n" })), (item, flow) => {
    const [name, bar, text] = item.children;
    put(name, `${flow.flow}, ${flow.class}`);
    bar.className = `meter wide ${colour(flow.class)}`;
    prop(bar, "--to", (flow.served / most).toFixed(3));
    put(text, `${number(flow.served)} tokens of late, ${number(flow.waiting)} waiting`);
  });
}
