// The console's frame: pages by the address's hash, the link to the gateway, the key, dark or light.

import { drawAgain } from "./chart.js";
import { attr, h, put } from "./dom.js";
import { connect, key, store, watch } from "./store.js";

const PAGES = {
  overview: () => import("./overview.js").then((file) => file.overview),
  queues: () => import("./queues.js").then((file) => file.queues),
  power: () => import("./power.js").then((file) => file.power),
  request: () => import("./request.js").then((file) => file.request),
  playground: () => import("./playground.js").then((file) => file.playground),
  controls: () => import("./controls.js").then((file) => file.controls),
};
const main = document.getElementById("main");
const built = new Map(); // pages keep what has been typed into them
let page = null;
let number = 0;

async function go() {
  const mine = (number += 1);
  const [name, ...rest] = location.hash.slice(1).split("/");
  const known = PAGES[name] ? name : "overview";
  for (const link of document.querySelectorAll("#tabs a")) {
    attr(link, "aria-current", link.getAttribute("href") === `#${known}` ? "page" : null);
  }
  document.title = `${known[0].toUpperCase()}${known.slice(1)} · Headrace`;
  if (!built.has(known)) {
    const make = await PAGES[known]();
    if (mine !== number) return;
    if (!built.has(known)) built.set(known, make());
  }
  const next = built.get(known);
  if (page !== next) {
    page?.away?.();
    page = next;
    main.replaceChildren(page);
    main.className = known;
    window.scrollTo(0, 0);
  }
  page.open?.(rest);
  if (store.state) page.show(store.state);
  drawAgain();
}

watch((state) => {
  if (document.hidden) return;
  page?.show(state);
  trouble(state);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden && store.state) page?.show(store.state);
});

function trouble(state) {
  const bar = document.getElementById("trouble");
  const said = Object.values(state.trouble);
  bar.hidden = said.length === 0;
  put(bar, said.join("; "));
}

// --- the link ---

const link = document.getElementById("link");
document.addEventListener("link", () => {
  attr(link, "data-status", store.status);
  put(link, { live: "live", away: "no answer", refused: "key needed", connecting: "connecting" }[store.status]);
  attr(link, "title", store.why || null);
  if (store.status === "refused") askKey(store.why);
});

const dialog = document.getElementById("ask-key");
const typed = document.getElementById("key-text");
const WHY = document.getElementById("ask-key-why");

function askKey(why) {
  put(WHY, why || "An operator's key. It is kept for this tab alone.");
  typed.value = key.get();
  if (!dialog.open) dialog.showModal();
}
dialog.addEventListener("close", () => {
  if (dialog.returnValue !== "ok") return;
  key.set(typed.value.trim());
  connect();
});
document.getElementById("key").addEventListener("click", () => askKey(""));

// --- dark or light ---

const root = document.documentElement;
const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(name) {
  attr(root, "data-theme", name || null);
  drawAgain();
}
theme(localStorage.getItem("headrace-theme"));
dark.addEventListener("change", drawAgain);
document.getElementById("theme").addEventListener("click", () => {
  const is = root.dataset.theme || (dark.matches ? "dark" : "light");
  const next = is === "dark" ? "light" : "dark";
  const own = next === (dark.matches ? "dark" : "light"); // what the system says needs no word of ours
  if (own) localStorage.removeItem("headrace-theme");
  else localStorage.setItem("headrace-theme", next);
  theme(own ? "" : next);
});

window.addEventListener("hashchange", go);
main.append(h("p", { class: "soft pad", text: "" }));
go();
connect();
window.headrace = store; // for who measures
