// The mesh's state in this page: one stream from the gateway, merged here, told to whoever shows it once a frame.

const KEYED = { workers: "id", queues: "worker", groups: "id", recent: "id", actions: "key" };
const POINTS = 180;
const SILENT_MS = 25000; // two and a half beats
const watchers = new Set();
let scheduled = false;

export const store = { state: null, status: "connecting", why: "", changes: 0, bytes: 0 };

export function watch(show) {
  watchers.add(show);
  if (store.state) show(store.state);
  return () => watchers.delete(show);
}

function changed() {
  if (scheduled) return;
  scheduled = true;
  requestAnimationFrame(() => {
    scheduled = false;
    for (const show of [...watchers]) show(store.state);
  });
}

export const key = {
  get: () => sessionStorage.getItem("headrace-key") || "",
  set: (text) => (text ? sessionStorage.setItem("headrace-key", text) : sessionStorage.removeItem("headrace-key")),
};

export function headers(more = {}) {
  return key.get() ? { ...more, authorization: `Bearer ${key.get()}` } : more;
}

export class Refused extends Error {
  constructor(status, message) {
    super(message);
    this.status = status;
  }
}

export async function refusal(reply) {
  let message = `${reply.status} ${reply.statusText}`;
  try {
    message = (await reply.json()).error.message;
  } catch {
    // not one of ours: the status says it
  }
  return new Refused(reply.status, message);
}

export async function get(path) {
  const reply = await fetch(path, { headers: headers() });
  if (!reply.ok) throw await refusal(reply);
  return reply.json();
}

// A command answers with the state that it has led to.
export async function post(path, body) {
  const reply = await fetch(path, {
    method: "POST",
    headers: headers({ "content-type": "application/json" }),
    body: JSON.stringify(body),
  });
  if (!reply.ok) throw await refusal(reply);
  const fresh = await reply.json();
  store.state = { ...fresh, history: store.state ? store.state.history : fresh.history };
  changed();
}

// Events of a text/event-stream: an async iterator of [name, data].
export async function* events(reply, signal) {
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done || signal?.aborted) return;
      store.bytes += value.length;
      const parts = (rest + value).split("\n\n");
      rest = parts.pop();
      for (const part of parts) {
        let name = "message";
        const data = [];
        for (const line of part.split("\n")) {
          if (line.startsWith("event: ")) name = line.slice(7);
          else if (line.startsWith("data: ")) data.push(line.slice(6));
        }
        if (data.length) yield [name, data.join("\n")];
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function merge(state, change) {
  const next = { ...state };
  for (const [name, value] of Object.entries(change)) {
    if (KEYED[name] && value && !Array.isArray(value)) {
      const by = new Map(state[name].map((one) => [one[KEYED[name]], one]));
      for (const one of value.set) by.set(one[KEYED[name]], one);
      for (const id of value.gone || []) by.delete(id);
      next[name] = (value.order || [...by.keys()]).map((id) => by.get(id));
    } else {
      next[name] = value;
    }
  }
  if (change.point) next.history = [...state.history, change.point].slice(-POINTS);
  return next;
}

function took(name, data) {
  if (name === "snapshot") store.state = JSON.parse(data);
  else if (name === "change") store.state = merge(store.state, JSON.parse(data));
  else return;
  store.changes += 1;
  changed();
}

function says(status, why = "") {
  store.status = status;
  store.why = why;
  document.dispatchEvent(new CustomEvent("link"));
}

let connection = null;

export function connect() {
  connection?.abort();
  connection = new AbortController();
  follow(connection);
}

async function follow(mine) {
  let pause = 500;
  while (!mine.signal.aborted) {
    let timer = 0;
    const round = new AbortController();
    const stop = () => round.abort();
    const alive = () => {
      clearTimeout(timer);
      timer = setTimeout(stop, SILENT_MS);
    };
    mine.signal.addEventListener("abort", stop);
    try {
      alive();
      const reply = await fetch("/console/api/events", { headers: headers(), signal: round.signal, cache: "no-store" });
      if (!reply.ok) throw await refusal(reply);
      says("live");
      pause = 500;
      for await (const [name, data] of events(reply, round.signal)) {
        alive();
        took(name, data);
      }
    } catch (error) {
      if (mine.signal.aborted) return;
      if (error instanceof Refused && (error.status === 401 || error.status === 403)) {
        says("refused", error.message);
        return;
      }
      says("away", error.message);
    } finally {
      clearTimeout(timer);
      mine.signal.removeEventListener("abort", stop);
    }
    if (mine.signal.aborted) return;
    if (store.status === "live") says("away");
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(5000, pause * 2);
  }
}
