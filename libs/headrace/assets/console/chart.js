// Curves of the last three minutes on a canvas: no library, one drawing a second, a reading under the pointer.

import { h, put } from "./dom.js";

const SPAN_S = 180;
const PAD = { right: 8, top: 8, bottom: 20 };
const charts = new Set();

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function nice(most) {
  if (!(most > 0)) return 1;
  const step = 10 ** Math.floor(Math.log10(most));
  return [1, 1.5, 2, 3, 4, 5, 6, 8, 10].map((n) => n * step).find((n) => n >= most * 1.04);
}

// lines: [{ name, of: point -> value or null, colour: css variable, dash, fill }]; say: value -> text
export function chart(title, lines, say, options = {}) {
  const canvas = h("canvas", { role: "img", "aria-label": `${title}, the last three minutes` });
  const values = lines.map(() => h("b", { text: "" }));
  const legend = h(
    "p",
    { class: "legend" },
    lines.map((line, i) => {
      const swatch = h("i", { class: line.dash ? "swatch dashed" : "swatch" });
      swatch.style.setProperty("--of", `var(${line.colour})`);
      return h("span", {}, swatch, line.name, " ", values[i]);
    }),
  );
  const node = h("figure", { class: "card chart" }, h("figcaption", { text: title }), legend, canvas);
  let points = [];
  let under = null;
  let left = 46;

  const scaled = () => {
    let most = options.most || 0;
    for (const line of lines) for (const p of points) most = Math.max(most, line.of(p) ?? 0);
    return nice(most);
  };
  const draw = () => {
    const wide = canvas.clientWidth;
    const high = canvas.clientHeight;
    if (!wide || !high) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(wide * ratio) || canvas.height !== Math.round(high * ratio)) {
      canvas.width = Math.round(wide * ratio);
      canvas.height = Math.round(high * ratio);
    }
    const at = canvas.getContext("2d");
    at.setTransform(ratio, 0, 0, ratio, 0, 0);
    at.clearRect(0, 0, wide, high);
    const now = points.length ? points[points.length - 1].at_s : 0;
    at.font = "11px system-ui, sans-serif";
    left = 14 + Math.max(30, ...[0.5, 1].map((share) => at.measureText(say(scaled() * share)).width));
    const x = (t) => left + ((t - now + SPAN_S) / SPAN_S) * (wide - left - PAD.right);
    const top = scaled();
    const y = (v) => high - PAD.bottom - (v / top) * (high - PAD.top - PAD.bottom);
    at.lineWidth = 1;
    at.strokeStyle = colour("--grid");
    at.fillStyle = colour("--soft");
    at.textAlign = "right";
    at.textBaseline = "middle";
    for (const share of [0, 0.5, 1]) {
      const line = Math.round(y(top * share)) + 0.5;
      at.beginPath();
      at.moveTo(left, line);
      at.lineTo(wide - PAD.right, line);
      at.stroke();
      at.fillText(say(top * share), left - 6, line);
    }
    at.textBaseline = "alphabetic";
    for (const ago of [180, 120, 60, 0]) {
      at.textAlign = ago === 180 ? "left" : ago === 0 ? "right" : "center";
      at.fillText(ago ? `${ago / 60} min` : "now", x(now - ago), high - 5);
    }
    lines.forEach((line, i) => {
      at.strokeStyle = colour(line.colour);
      at.lineWidth = line.dash ? 1.4 : 1.8;
      at.setLineDash(line.dash || []);
      at.lineJoin = "round";
      at.beginPath();
      let open = false;
      let first = null;
      let last = null;
      for (const p of points) {
        const v = line.of(p);
        if (v === null || v === undefined) {
          open = false;
          continue;
        }
        const px = x(p.at_s);
        if (px < left - 2) continue;
        if (open) at.lineTo(px, y(v));
        else at.moveTo(px, y(v));
        first ??= px;
        last = px;
        open = true;
      }
      at.stroke();
      at.setLineDash([]);
      if (line.fill && first !== null) {
        at.lineTo(last, y(0));
        at.lineTo(first, y(0));
        at.globalAlpha = 0.1;
        at.fillStyle = colour(line.colour);
        at.fill();
        at.globalAlpha = 1;
      }
      const read = under === null ? points[points.length - 1] : nearest(points, now - SPAN_S + under * SPAN_S);
      const v = read ? line.of(read) : null;
      put(values[i], v === null || v === undefined ? "" : say(v));
    });
    if (under !== null) {
      const line = Math.round(left + under * (wide - left - PAD.right)) + 0.5;
      at.strokeStyle = colour("--soft");
      at.lineWidth = 1;
      at.beginPath();
      at.moveTo(line, PAD.top);
      at.lineTo(line, high - PAD.bottom);
      at.stroke();
    }
  };

  const point = (event) => {
    const wide = canvas.clientWidth - left - PAD.right;
    under = Math.max(0, Math.min(1, (event.offsetX - left) / wide));
    draw();
  };
  canvas.addEventListener("pointermove", point);
  canvas.addEventListener("pointerdown", point);
  canvas.addEventListener("pointerleave", () => {
    under = null;
    draw();
  });
  const resized = new ResizeObserver(draw);
  resized.observe(canvas);
  charts.add(draw);
  let shown = null;
  node.show = (history) => {
    if (history === shown) return;
    shown = points = history;
    draw();
  };
  node.gone = () => {
    resized.disconnect();
    charts.delete(draw);
  };
  return node;
}

function nearest(points, at_s) {
  let best = null;
  for (const p of points) if (best === null || Math.abs(p.at_s - at_s) < Math.abs(best.at_s - at_s)) best = p;
  return best;
}

export function drawAgain() {
  for (const draw of charts) draw();
}
