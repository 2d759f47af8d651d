// Ask the mesh as any client does: text, pictures, a clip; the answer as it streams, and where its time went.

import { attr, h, keyed, put } from "./dom.js";
import { dash, joules, number, seconds } from "./format.js";
import { record } from "./recorder.js";
import { events, headers, refusal } from "./store.js";
import { waterfall } from "./waterfall.js";

const MEDIA_MAX = 16;
const BYTES_MAX = 16 << 20; // of one file
const SHOWN_MAX = 40; // turns on the page

function field(label, control) {
  return h("label", {}, label, control);
}

export function playground() {
  const talk = h("div", { class: "talk", role: "log", "aria-live": "polite", "aria-label": "Conversation" });
  const hello = h("p", { class: "soft hello", text: "Ask something. Drop pictures, sounds or videos anywhere on this page." });
  const text = h("textarea", { rows: "2", placeholder: "Ask", "aria-label": "Question" });
  const thumbs = h("div", { class: "thumbs", "aria-label": "Attached media" });
  const file = h("input", { type: "file", multiple: true, accept: "image/*,audio/*,video/*", hidden: true });
  const attach = h("button", { type: "button", class: "quiet", title: "Attach files", "aria-label": "Attach files", onclick: () => file.click() }, h("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, h("path", { d: "M20 11l-8.500 8.500a5 5 0 0 1-7-7L13 4a3.300 3.300 0 0 1 4.700 4.700L9.500 17a1.600 1.600 0 0 1-2.300-2.300L15 7" })));
  const mic = h("button", { type: "button", class: "quiet", title: "Record a clip", "aria-label": "Record a clip", "aria-pressed": "false" }, h("svg", { viewBox: "0 0 24 24", "aria-hidden": "true" }, h("path", { d: "M12 4a3 3 0 0 1 3 3v5a3 3 0 0 1-6 0V7a3 3 0 0 1 3-3zM6 11a6 6 0 0 0 12 0M12 17v4" })));
  const send = h("button", { type: "submit", class: "main", text: "Send" });
  const model = h("select");
  const slo = h("select");
  const seed = h("input", { type: "number", min: "0", step: "1", placeholder: "any", inputmode: "numeric" });
  const temperature = h("input", { type: "number", min: "0", max: "2", step: "0.1", value: "0" });
  const most = h("input", { type: "number", min: "1", max: "8192", step: "1", value: "256" });
  const other = h("input", { type: "password", placeholder: "this page's", autocomplete: "off" });
  const fresh = h("button", { type: "button", class: "quiet", text: "New conversation" });
  const trouble = h("p", { class: "bad-text", role: "alert" });
  const settings = h(
    "details",
    { class: "settings" },
    h("summary", { text: "Settings" }),
    h("div", { class: "fields" }, field("Model", model), field("Class", slo), field("Seed", seed), field("Temperature", temperature), field("Tokens at most", most), field("Key", other)),
    fresh,
  );
  const form = h("form", { class: "ask card" }, thumbs, text, h("div", { class: "row" }, attach, mic, h("span", { class: "grow" }), send), trouble, settings, file);
  const node = h("div", { class: "chat" }, h("div", { class: "talk-box" }, hello, talk), form);
  let media = []; // { file, url }
  let turns = []; // as the API takes them
  let running = null;
  let stopRecording = null;

  // --- media ---

  function add(files) {
    put(trouble, "");
    for (const one of files) {
      if (!/^(image|audio|video)\//.test(one.type)) put(trouble, `${one.name}: neither picture, sound nor video`);
      else if (one.size > BYTES_MAX) put(trouble, `${one.name}: larger than ${BYTES_MAX >> 20} MB`);
      else if (media.length >= MEDIA_MAX) put(trouble, `at most ${MEDIA_MAX} files`);
      else media.push({ file: one, url: URL.createObjectURL(one) });
    }
    showThumbs();
  }
  function showThumbs() {
    keyed(thumbs, media, (one) => one.url, (one) => thumb(one, () => {
      URL.revokeObjectURL(one.url);
      media = media.filter((other) => other !== one);
      showThumbs();
    }), () => {});
    thumbs.hidden = media.length === 0;
  }
  showThumbs();
  file.addEventListener("change", () => {
    add(file.files);
    file.value = "";
  });
  for (const name of ["dragenter", "dragover"]) {
    node.addEventListener(name, (event) => {
      event.preventDefault();
      attr(node, "data-drop", true);
    });
  }
  node.addEventListener("dragleave", (event) => !node.contains(event.relatedTarget) && attr(node, "data-drop", null));
  node.addEventListener("drop", (event) => {
    event.preventDefault();
    attr(node, "data-drop", null);
    add(event.dataTransfer.files);
  });
  text.addEventListener("paste", (event) => event.clipboardData.files.length && add(event.clipboardData.files));
  mic.addEventListener("click", async () => {
    if (stopRecording) return stopRecording();
    try {
      stopRecording = await record((clip, error) => {
        stopRecording = null;
        attr(mic, "aria-pressed", "false");
        if (clip) add([clip]);
        else put(trouble, `the clip cannot be read: ${error.message}`);
      });
      attr(mic, "aria-pressed", "true");
    } catch (error) {
      put(trouble, `no microphone: ${error.message}`);
    }
  });

  // --- asking ---

  text.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      form.requestSubmit();
    }
  });
  fresh.addEventListener("click", () => {
    running?.abort();
    turns = [];
    talk.replaceChildren();
    hello.hidden = false;
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    if (running) running.abort();
    else if (text.value.trim() || media.length) ask();
  });

  async function ask() {
    put(trouble, "");
    const said = text.value.trim();
    const sent = media;
    running = new AbortController();
    put(send, "Stop");
    const parts = await Promise.all(sent.map((one) => part(one.file)));
    turns.push({ role: "user", content: parts.length ? [...parts, { type: "text", text: said }] : said });
    media = [];
    text.value = "";
    showThumbs();
    hello.hidden = true;
    talk.append(h("div", { class: "turn user" }, sent.length ? h("div", { class: "thumbs" }, sent.map((one) => thumb(one))) : null, h("p", { text: said })));
    const answer = makeAnswer();
    talk.append(answer);
    while (talk.children.length > SHOWN_MAX) talk.firstChild.remove();
    answer.scrollIntoView({ block: "end" });
    try {
      await stream(answer, running.signal);
    } catch (error) {
      answer.fail(error.name === "AbortError" ? "stopped" : error.message);
    }
    turns.push({ role: "assistant", content: answer.text() });
    running = null;
    put(send, "Send");
    text.focus({ preventScroll: true });
  }

  async function stream(answer, signal) {
    const body = { model: model.value, messages: turns, stream: true, stream_options: { include_usage: true }, temperature: Number(temperature.value) || 0, max_tokens: Number(most.value) || 256 };
    if (slo.value) body.slo_class = slo.value;
    if (seed.value !== "") body.seed = Number(seed.value);
    const sent = headers({ "content-type": "application/json", "x-headrace-timeline": "1" });
    if (other.value) sent.authorization = `Bearer ${other.value}`;
    const began = performance.now();
    const reply = await fetch("/v1/chat/completions", { method: "POST", headers: sent, body: JSON.stringify(body), signal });
    if (!reply.ok) throw await refusal(reply);
    answer.begin(reply.headers.get("x-request-id"), began);
    for await (const [, data] of events(reply, signal)) {
      if (data === "[DONE]") break;
      answer.take(JSON.parse(data));
    }
  }

  node.show = (state) => {
    options(model, state.models.map((name) => [name, name]));
    options(slo, [["", "default"], ...state.classes.map((one) => [one.name, `${one.name} (${seconds(one.target_s)})`])]);
  };
  return node;
}

function options(select, wanted) {
  const said = JSON.stringify(wanted);
  if (select.__said === said) return;
  select.__said = said;
  const chosen = select.value;
  select.replaceChildren(...wanted.map(([value, label]) => h("option", { value, text: label })));
  if (wanted.some(([value]) => value === chosen)) select.value = chosen;
}

function thumb(one, remove) {
  const kind = one.file.type.split("/")[0];
  const shown = kind === "image" ? h("img", { src: one.url, alt: one.file.name }) : h("span", { class: "clip" }, kind === "audio" ? h("audio", { src: one.url, controls: true, preload: "metadata" }) : h("video", { src: one.url, controls: true, preload: "metadata" }));
  const button = remove ? h("button", { type: "button", class: "remove", "aria-label": `remove ${one.file.name}`, text: "×", onclick: remove }) : null;
  return h("figure", { title: one.file.name, class: kind }, shown, button);
}

async function part(file) {
  const url = await new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
  const kind = file.type.split("/")[0];
  if (kind === "image") return { type: "image_url", image_url: { url } };
  if (kind === "video") return { type: "video_url", video_url: { url } };
  return { type: "audio_url", audio_url: { url } };
}

function makeAnswer() {
  const body = h("p", { class: "said" });
  const words = document.createTextNode("");
  const caret = h("i", { class: "caret", "aria-hidden": "true" });
  body.append(words, caret);
  const facts = h("p", { class: "soft facts-line" });
  const link = h("a", { class: "soft", hidden: true, text: "its life" });
  const fall = waterfall();
  const box = h("details", { class: "where", hidden: true }, h("summary", { text: "Where the time went" }), fall);
  const node = h("div", { class: "turn answer" }, body, h("div", { class: "row" }, facts, link), box);
  let began = 0;
  let first = null;
  let tokens = 0;
  let usage = null;
  const say = () => {
    const now = performance.now();
    const took = first === null ? 0 : (now - first) / 1000;
    const list = [first === null ? "waiting" : `first token ${seconds((first - began) / 1000)}`, `${number(usage?.completion_tokens ?? tokens)} tokens`];
    if (tokens > 1 && took > 0) list.push(`${number((tokens - 1) / took)} a second`);
    if (usage) list.push(usage.joules === undefined ? "energy not readable" : joules(usage.joules));
    put(facts, list.join(" · "));
  };
  node.text = () => words.data;
  node.begin = (id, at) => {
    began = at;
    if (id) {
      link.hidden = false;
      attr(link, "href", `#request/${id}`);
      node.dataset.request = id;
    }
    say();
  };
  node.take = (chunk) => {
    if (chunk.error) throw new Error(chunk.error.message);
    const delta = chunk.choices?.[0]?.delta?.content;
    if (delta !== undefined && delta !== null) {
      first ??= performance.now();
      tokens += 1;
      words.appendData(delta);
      say();
    }
    if (chunk.usage) usage = chunk.usage;
    const extras = chunk.headrace;
    if (extras) {
      fall.show({ timeline: extras.timeline });
      box.hidden = false;
    }
    if (usage || chunk.choices?.[0]?.finish_reason) {
      caret.remove();
      say();
    }
  };
  node.fail = (why) => {
    caret.remove();
    body.append(h("span", { class: "bad-text", text: words.data ? ` — ${why}` : why }));
    if (!began) put(facts, dash);
  };
  return node;
}
