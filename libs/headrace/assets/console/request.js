// One request's life, and the latest requests to choose one from.

import { attr, card, h, keyed, put, table } from "./dom.js";
import { clock, colours, dash, joules, number, seconds, short } from "./format.js";
import { get } from "./store.js";
import { waterfall } from "./waterfall.js";

const SHOWN = matchMedia("(max-width: 720px)").matches ? 8 : 20; // of each list
const AGAIN_MS = 1000; // a request that has not ended is asked for again

export function request() {
  const input = h("input", { name: "id", placeholder: "request id", "aria-label": "request id", spellcheck: "false", autocomplete: "off", maxlength: "80" });
  const form = h("form", { class: "row find" }, input, h("button", { type: "submit", class: "main", text: "Show" }));
  const trouble = h("p", { class: "bad-text", role: "alert" });
  const title = h("h2", { text: "A request" });
  const state = h("span", { class: "pill" });
  const why = h("p", { class: "why" });
  const facts = h("dl", { class: "facts" });
  const fall = waterfall();
  const hint = h("p", { class: "soft", text: "Choose one below, or paste an id: it is in each answer's x-request-id." });
  const life = h("section", { class: "card life" }, h("div", { class: "row" }, title, state), hint, why, fall, facts, trouble);
  let colour = () => "c6";
  const name = ["request", (one, cell) => {
    if (!cell.__link) {
      cell.__dot = h("i");
      cell.__link = h("a", { class: "mono" });
      cell.append(cell.__dot, cell.__link);
    }
    cell.__dot.className = `dot ${colour(one.class)}`;
    attr(cell.__dot, "title", one.class);
    attr(cell.__link, "href", `#request/${one.id}`);
    put(cell.__link, short(one.id));
  }];
  const came = ["came", (one) => clock(one.at_s), "n"];
  const tenant = ["tenant", (one) => one.tenant, "wide-only"];
  const first = ["first token", (one) => seconds(one.ttft_s), "n"];
  const tokens = ["tokens", (one) => number(one.tokens), "n"];
  const running = table([name, came, tenant, first, tokens], { class: "list", empty: "nobody" });
  const ended = table(
    [name, came, first, tokens, ["took", (one) => seconds(one.took_s), "n wide-only"], ["energy", (one) => joules(one.joules), "n wide-only"], ["end", (one) => one.reason]],
    { class: "list", empty: "none of late" },
  );
  const legend = h("p", { class: "legend classes" });
  const lists = h("div", { class: "two" }, card("Under way, at this gateway", legend, running), card("Ended", ended));
  const node = h("div", {}, form, life, lists);
  let asked = "";
  let timer = 0;

  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const id = input.value.trim().replace(/^chatcmpl-/, "");
    if (id) location.hash = `#request/${encodeURIComponent(id)}`;
  });

  async function ask() {
    clearTimeout(timer);
    const id = asked;
    if (!id) return;
    try {
      const told = await get(`/console/api/requests/${encodeURIComponent(id)}`);
      if (id !== asked) return;
      put(trouble, "");
      showLife(told);
      if (!told.reason && told.explain?.state !== "ended") timer = setTimeout(ask, AGAIN_MS);
    } catch (error) {
      if (id === asked) put(trouble, error.message);
    }
  }

  function showLife(told) {
    const explain = told.explain;
    const is = told.reason ? `ended: ${told.reason}` : explain?.state || "running";
    hint.hidden = true;
    put(title, `Request ${short(told.id)}`);
    put(state, is);
    attr(state, "data-level", told.failure ? "bad" : told.reason ? "ok" : "run");
    const where = explain?.queue ? ` In group ${explain.group} of ${explain.queue}.` : "";
    put(why, told.failure ? `${told.failure.code}: ${told.failure.message}` : explain && !told.reason ? `${explain.why}.${where}` : "");
    fall.show(told);
    const usage = told.usage;
    const ttft = told.first_token_s && told.received_s ? told.first_token_s - told.received_s : null;
    const decoding = told.ended_s && told.first_token_s ? told.ended_s - told.first_token_s : null;
    const list = [
      ["id", told.id],
      ["class", told.class || dash],
      ["model", told.model || dash],
      ["tenant", told.tenant || dash],
      ["first token", ttft === null ? dash : `${seconds(ttft)} of ${seconds(told.target_s)}`],
      ["tokens", usage ? `${usage.prompt} + ${usage.completion}` : told.tokens === undefined ? dash : `${told.prompt_tokens} + ${told.tokens} so far`],
    ];
    const media = usage ? ["image", "audio", "video"].filter((kind) => usage[kind]).map((kind) => `${usage[kind]} ${kind}`) : [];
    if (media.length) list.push(["of them media", media.join(", ")]);
    if (usage?.cached) list.push(["from the prefix cache", number(usage.cached)]);
    if (decoding && told.tokens > 1) list.push(["between tokens", seconds(decoding / (told.tokens - 1))]);
    if (usage?.joules) list.push(["energy", `${joules(usage.joules)}${usage.completion ? `, ${joules(usage.joules / usage.completion)} a token` : ""}`]);
    if (explain && !told.reason) {
      if (explain.wait_s !== null) list.push(["expected", `in ${seconds(explain.wait_s)}, nine of ten within ${seconds(explain.bound_s)}`]);
      if (explain.predicted !== null) list.push(["answer, predicted", `${number(explain.predicted)} tokens, 90 % below ${number(explain.predicted_p90)}`]);
      list.push(["before it", number(explain.position)]);
    }
    if (told.trace_id) list.splice(1, 0, ["trace", told.trace_id]);
    const attempt = explain?.attempt || told.attempt;
    if (attempt) list.push(["attempt", attempt % 4096]);
    keyed(facts, list, ([name]) => name, () => h("div", {}, h("dt"), h("dd")), (item, [name, said]) => {
      put(item.firstChild, name);
      put(item.lastChild, said);
      const long = name === "id" || name === "trace";
      item.lastChild.className = long ? "mono" : "";
      item.className = long ? "double" : "";
    });
  }

  node.open = ([id]) => {
    const wanted = decodeURIComponent(id || "");
    if (wanted && wanted !== asked) {
      asked = wanted;
      input.value = wanted;
    }
    ask();
  };
  node.away = () => clearTimeout(timer);
  let held = false; // under the pointer, or with the keyboard in it: rows stay where they are
  lists.addEventListener("pointerenter", (event) => (held = event.pointerType === "mouse"));
  lists.addEventListener("pointerleave", () => (held = false));
  node.show = (now) => {
    colour = colours(now);
    if (held || lists.contains(document.activeElement)) return;
    keyed(legend, now.classes, (one) => one.name, () => h("span", {}, h("i"), h("span")), (item, one) => {
      item.firstChild.className = `swatch ${colour(one.name)}`;
      put(item.lastChild, one.name);
    });
    running.show(now.recent.filter((one) => !one.reason).slice(0, SHOWN), (one) => one.id);
    ended.show(now.recent.filter((one) => one.reason).slice(0, SHOWN), (one) => one.id);
  };
  return node;
}
