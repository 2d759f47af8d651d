// What operators may change while the mesh runs, and the log of who did.

import { attr, card, h, keyed, put, table } from "./dom.js";
import { clock, dash, number, watts } from "./format.js";
import { post } from "./store.js";

const ABOUT = {
  solve: ["Plan anew", "Ask the solver for a plan of all groups, once a second while somebody would be late."],
  evict: ["Evict", "Take running requests out for more urgent ones; their KV caches wait in host memory."],
  balance: ["Balance", "An instance with nothing to do serves the most urgent of what waits elsewhere."],
  fair: ["Fair shares", "Among requests of a kind, the tenant that was served least comes first."],
  overlap: ["Overlap", "Prefill begins on a request's first media while others are still being encoded."],
  early_rejection: ["Early rejection", "Refuse at once what cannot begin before its deadline."],
  autoscale: ["Autoscaling", "Which policy says how many workers each pool has."],
  governor: ["Governor", "Observe: caps are worked out and shown, nobody is told. Enforce: workers obey."],
};

function sure(title, text, ok) {
  const dialog = document.getElementById("sure");
  put(document.getElementById("sure-title"), title);
  put(document.getElementById("sure-text"), text);
  put(document.getElementById("sure-ok"), ok);
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener("close", () => resolve(dialog.returnValue === "ok"), { once: true }));
}

export function controls() {
  const trouble = h("p", { class: "bad-text", role: "alert" });
  const budgets = h("div", { class: "budgets" });
  const noRows = h("p", { class: "soft", text: "The governor has told of no row." });
  const emergencies = h("p", { class: "soft" });
  const declare = (kind, title, text) =>
    h("button", { type: "button", class: "danger", text: title, onclick: async () => (await sure(title, text, "Declare it")) && say("/console/api/governor", { action: "emergency", kind }) });
  const clear = h("button", { type: "button", text: "All clear", onclick: () => say("/console/api/governor", { action: "clear" }) });
  const list = h("div", { class: "switches" });
  const mode = h("div", { class: "switches" });
  const noList = h("p", { class: "soft", text: "Nothing can be switched: no queue manager answers." });
  const audit = table(
    [
      ["at", (one) => clock(one.at_s)],
      ["who", (one) => one.who || dash],
      ["what", (one) => `${one.action} ${one.subject}`],
      ["change", (one) => change(one), "n"],
      ["note", (one) => one.reason, "wide-only soft"],
    ],
    { class: "audit", empty: "nobody has changed anything" },
  );
  const node = h(
    "div",
    {},
    trouble,
    h("div", { class: "two" }, card("Power budgets", noRows, budgets, mode, h("h3", { text: "Emergencies" }), emergencies, h("div", { class: "row wrap" }, declare("ups", "A UPS is lost", "Every row keeps three quarters of its power at once; less important work gives way first."), declare("ahu", "An air handler is lost", "Every row keeps nine tenths of its air."), clear)), card("Switches", h("p", { class: "soft note", text: "They hold until the service that they belong to is started again." }), noList, list)),
    card("Audit log", audit),
  );

  async function say(path, body) {
    put(trouble, "");
    try {
      await post(path, body);
    } catch (error) {
      put(trouble, error.message);
    }
  }

  node.show = (state) => {
    noRows.hidden = state.rows.length > 0;
    keyed(budgets, state.rows, (row) => row.row, (row) => makeBudget(row.row, say), (item, row) => item.__show(row));
    const hold = [...new Set(state.rows.flatMap((row) => row.emergencies))];
    put(emergencies, hold.length ? `In force: ${hold.join(", ")}.` : "None is in force.");
    clear.disabled = hold.length === 0;
    noList.hidden = state.switches.length > 0;
    for (const [box, here] of [[list, (one) => one.name !== "governor"], [mode, (one) => one.name === "governor"]]) {
      keyed(box, state.switches.filter(here), (one) => one.name, (one) => makeSwitch(one, say), (item, one) => item.__show(one));
    }
    audit.show(state.audit, (one) => one.key);
  };
  return node;
}

function change(one) {
  if (typeof one.before === "string") return `${one.before} → ${one.after}`;
  if (one.action === "mode") return one.reason.split(":")[0].replace("->", "→");
  const unit = one.action === "budget" ? (v) => (v ? watts(v) : "none") : (v) => `${number(v * 100)} %`;
  return `${unit(one.before)} → ${unit(one.after)}`;
}

function makeBudget(name, say) {
  const input = h("input", { type: "number", min: "0", step: "10", inputmode: "numeric", "aria-label": `watts of ${name}` });
  const said = h("span", { class: "soft" });
  const none = h("button", { type: "button", class: "quiet", text: "No budget", onclick: () => say("/console/api/governor", { action: "set-budget", row: name, budget_w: 0 }) });
  const form = h("form", { class: "row wrap budget" }, h("b", { text: name }), said, h("span", { class: "grow" }), input, h("span", { text: "W" }), h("button", { type: "submit", text: "Set" }), none);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (input.value !== "") say("/console/api/governor", { action: "set-budget", row: name, budget_w: Number(input.value) });
  });
  form.__show = (row) => {
    put(said, `draws ${watts(row.power_w)}${row.limit_w ? `, may draw ${watts(row.limit_w)}` : ""}`);
    attr(input, "placeholder", row.budget_w ? Math.round(row.budget_w) : "none");
    none.disabled = !row.budget_w;
  };
  return form;
}

function makeSwitch(one, say) {
  const [title, text] = ABOUT[one.name] || [one.name, ""];
  const toggles = one.values.length === 2 && one.values.includes("on");
  const set = (value) => say("/console/api/switch", { name: one.name, value });
  const control = toggles
    ? h("button", { type: "button", role: "switch", class: "toggle", "aria-label": title }, h("i"))
    : h("div", { class: "segments", role: "radiogroup", "aria-label": title }, one.values.map((value) => h("button", { type: "button", role: "radio", "data-value": value, text: value, onclick: () => choose(value) })));
  const choose = async (value) => {
    if (one.name === "governor" && value === "observe" && !(await sure("Stop enforcing?", "All caps are lifted. Limits are shown and nobody keeps them.", "Observe only"))) return;
    set(value);
  };
  const node = h("div", { class: "switch" }, h("div", {}, h("b", { text: title }), h("small", { class: "soft", text })), control);
  let now = one;
  if (toggles) control.addEventListener("click", () => set(now.value === "on" ? "off" : "on"));
  node.__show = (fresh) => {
    now = fresh;
    if (toggles) attr(control, "aria-checked", fresh.value === "on" ? "true" : "false");
    else for (const each of control.children) attr(each, "aria-checked", each.dataset.value === fresh.value ? "true" : "false");
  };
  return node;
}
