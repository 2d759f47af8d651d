// Elements without a framework: h() makes one, keyed() keeps a list of them, put() changes a text only if it differs.

export function h(tag, props = {}, ...children) {
  const svg = tag === "svg" || tag === "path" || tag === "circle";
  const node = svg ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name === "text") node.textContent = value;
    else if (name === "value" || name === "checked" || name === "disabled") node[name] = value;
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return node;
}

export function put(node, text) {
  const said = String(text);
  if (node.textContent !== said) node.textContent = said;
}

export function attr(node, name, value) {
  if (value === null || value === undefined || value === false) {
    if (node.hasAttribute(name)) node.removeAttribute(name);
  } else if (node.getAttribute(name) !== String(value)) node.setAttribute(name, value === true ? "" : value);
}

// A custom property of an element's style; through the object model, which a strict policy allows.
export function prop(node, name, value) {
  const said = String(value);
  const props = (node.__props ??= {});
  if (props[name] === said) return;
  props[name] = said;
  node.style.setProperty(name, said);
}

// Keeps one child for each item: made once, updated each time, in the items' order unless that is no matter: a child
// that is moved in the document begins its animations anew and loses the focus.
export function keyed(parent, items, keyOf, make, update, ordered = true) {
  const kept = (parent.__kept ??= new Map());
  const seen = new Set();
  let at = 0;
  for (const item of items) {
    const id = keyOf(item);
    seen.add(id);
    let node = kept.get(id);
    if (!node) {
      node = make(item);
      kept.set(id, node);
    }
    update(node, item);
    if (ordered ? parent.children[at] !== node : node.parentNode !== parent) parent.insertBefore(node, ordered ? parent.children[at] || null : null);
    at += 1;
  }
  for (const [id, node] of kept) {
    if (seen.has(id)) continue;
    node.remove();
    kept.delete(id);
  }
}

// A table whose body is kept row by row. columns: [head, of item -> text or node, class, head's title]
export function table(columns, options = {}) {
  const head = h("tr", {}, columns.map(([name, , cls]) => h("th", { scope: "col", class: cls, text: name })));
  const body = h("tbody");
  const node = h("div", { class: "scroll" }, h("table", { class: options.class || "" }, h("thead", {}, head), body));
  const empty = h("p", { class: "soft empty", text: options.empty || "nothing" });
  node.append(empty);
  const make = () => {
    const cells = columns.map(([, , cls], i) => h(i ? "td" : "th", { class: cls, scope: i ? null : "row" }));
    const row = h("tr", {}, cells);
    row.__cells = cells;
    return row;
  };
  const update = (row, item) => {
    columns.forEach(([, of], i) => {
      const told = of(item, row.__cells[i]);
      if (typeof told === "string" || typeof told === "number") put(row.__cells[i], told);
      else if (told instanceof Node && row.__cells[i].firstChild !== told) row.__cells[i].replaceChildren(told);
    });
    options.row?.(row, item);
  };
  node.show = (items, keyOf) => {
    keyed(body, items, keyOf, make, update);
    empty.hidden = items.length > 0;
    node.firstChild.hidden = items.length === 0;
  };
  return node;
}

export function card(title, ...children) {
  return h("section", { class: "card" }, title ? h("h2", { text: title }) : null, children);
}

// A bar that fills to a share, with marks on it; drawn by the style sheet alone.
export function meter(cls = "") {
  const node = h("span", { class: `meter ${cls}` }, h("i"));
  node.to = (share, level = "") => {
    prop(node, "--to", Math.max(0, Math.min(1, share || 0)).toFixed(3));
    attr(node, "data-level", level || null);
  };
  return node;
}
