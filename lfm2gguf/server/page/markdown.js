// Markdown as a model writes it, to nodes. Text only ever becomes text nodes: nothing in it is HTML.

const h = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value === true) node.setAttribute(name, "");
    else if (value !== false && value != null) node.setAttribute(name, value);
  }
  node.append(...children.filter((child) => child != null));
  return node;
};

const SAFE = new Set(["http:", "https:", "mailto:"]);
const DEEPEST = 8;

function link(target, children) {
  let url;
  try { url = new URL(target); } catch { return null; }
  if (!SAFE.has(url.protocol)) return null;
  return h("a", { href: url.href, title: url.href, target: "_blank", rel: "noopener noreferrer nofollow" }, ...children);
}

// One pass from left to right. `absent` remembers marks that have no end further on, so that a
// text full of open marks does not take quadratic time.
function inline(text, depth = 0) {
  const out = [], absent = new Set();
  let plain = "", i = 0;
  const flush = () => { if (plain) out.push(plain); plain = ""; };
  const put = (node, next) => { flush(); out.push(node); i = next; };
  const find = (mark, from, fits = () => true) => {
    if (absent.has(mark)) return -1;
    let at = text.indexOf(mark, from);
    while (at >= 0 && !fits(at)) at = text.indexOf(mark, at + 1);
    if (at < 0) absent.add(mark);
    return at;
  };
  const word = (at) => at >= 0 && at < text.length && /[\p{L}\p{N}]/u.test(text[at]);
  while (i < text.length) {
    const c = text[i];
    if (c === "\\" && /[\\`*_{}[\]()#+\-.!~|<>]/.test(text[i + 1] ?? "")) {
      plain += text[i + 1]; i += 2; continue;
    }
    if (c === "\n") { put(h("br"), i + 1); continue; }
    if (c === "`") {
      const ticks = /^`+/.exec(text.slice(i, i + 40))[0];
      const end = find(ticks, i + ticks.length, (at) => text[at + ticks.length] !== "`" && text[at - 1] !== "`");
      if (end > 0) { put(h("code", {}, text.slice(i + ticks.length, end).replace(/^ (.+) $/s, "$1")), end + ticks.length); continue; }
      plain += ticks; i += ticks.length; continue;
    }
    if (depth < DEEPEST && (c === "*" || c === "_" || c === "~")) {
      const mark = [c.repeat(3), c + c, c].find((m) => text.startsWith(m, i) && (c !== "~" || m === "~~"));
      const after = mark && i + mark.length;
      if (mark && after < text.length && !/\s/.test(text[after]) && !(c === "_" && word(i - 1))) {
        const ends = (at) => at > after && !/\s/.test(text[at - 1]) && text[at + mark.length] !== c &&
          !(c === "_" && word(at + mark.length));
        const end = find(mark, after + 1, ends);
        if (end > 0) {
          const inner = inline(text.slice(after, end), depth + 1);
          const node = c === "~" ? h("del", {}, ...inner)
            : mark.length === 3 ? h("strong", {}, h("em", {}, ...inner))
            : h(mark.length === 2 ? "strong" : "em", {}, ...inner);
          put(node, end + mark.length); continue;
        }
      }
      const run = mark ?? c;
      plain += run; i += run.length; continue;
    }
    if (c === "[" || (c === "!" && text[i + 1] === "[")) { // an image is a link: nothing is fetched
      const found = /^!?\[([^[\]\n]{0,500})\]\(<?([^\s()<>]{1,2000}(?:\([^\s()]{0,200}\)[^\s()<>]{0,200})?)>?(?:\s+"[^"\n]{0,200}")?\)/.exec(text.slice(i, i + 3000));
      const node = found && depth < DEEPEST && link(found[2], inline(found[1] || found[2], DEEPEST));
      if (node) { put(node, i + found[0].length); continue; }
    }
    if ((c === "h" || c === "<") && !word(i - 1)) {
      const found = /^<?(https?:\/\/[^\s<>"'`)\]]{1,2000}[^\s<>"'`)\].,;:!?])>?/.exec(text.slice(i, i + 2010));
      const node = found && depth < DEEPEST && link(found[1], [found[1]]);
      if (node) { put(node, i + found[0].length); continue; }
    }
    plain += c; i++;
  }
  flush();
  return out;
}

const FENCE = /^ {0,3}(`{3,}|~{3,})\s*([^`\n]*)$/;
const ITEM = /^(\s*)([-*+]|\d{1,9}[.)])\s+(.*)$/;
const RULE = /^ {0,3}([-*_])[ \t]*(?:\1[ \t]*){2,}$/;
const HEADING = /^ {0,3}(#{1,6})\s+(.*)$/;
const DIVIDER = /^\s*\|?\s*:?-+:?\s*(\|\s*:?-+:?\s*)*\|?\s*$/;
const BLANK = /^\s*$/;

// Cuts a text into blocks: objects that, as JSON, are equal exactly where they look the same.
function blocks(text, depth = 0) {
  const lines = text.replace(/\r\n?/g, "\n").split("\n"), out = [];
  let i = 0;
  const starts = (line) => FENCE.test(line) || HEADING.test(line) || ITEM.test(line) || RULE.test(line) || /^\s*>/.test(line);
  while (i < lines.length) {
    const line = lines[i];
    let found;
    if (BLANK.test(line)) { i++; continue; }
    if ((found = FENCE.exec(line))) {
      const mark = found[1], body = [];
      for (i++; i < lines.length && !(lines[i].trim().startsWith(mark) && !lines[i].trim().replaceAll(mark[0], "")); i++) body.push(lines[i]);
      i++;
      out.push({ kind: "code", language: found[2].trim().slice(0, 40), text: body.join("\n") });
    } else if ((found = HEADING.exec(line))) {
      out.push({ kind: "heading", level: found[1].length, text: found[2].replace(/ #+ *$/, "") }); i++;
    } else if (RULE.test(line)) {
      out.push({ kind: "rule" }); i++;
    } else if (/^\s*>/.test(line) && depth < DEEPEST) {
      const body = [];
      for (; i < lines.length && !BLANK.test(lines[i]); i++) body.push(lines[i].replace(/^\s*> ?/, ""));
      out.push({ kind: "quote", blocks: blocks(body.join("\n"), depth + 1) });
    } else if (ITEM.test(line) && depth < DEEPEST) {
      i = list(lines, i, out, depth);
    } else if (line.includes("|") && DIVIDER.test(lines[i + 1] ?? "") && lines[i + 1].includes("-")) {
      const rows = [];
      const sides = cells(lines[i + 1]).map((cell) => cell.endsWith(":") ? (cell.startsWith(":") ? "mid" : "end") : "");
      const head = cells(line);
      for (i += 2; i < lines.length && lines[i].includes("|"); i++) rows.push(cells(lines[i]));
      out.push({ kind: "table", head, sides, rows });
    } else {
      const body = [line];
      for (i++; i < lines.length && !BLANK.test(lines[i]) && !starts(lines[i]); i++) body.push(lines[i]);
      out.push({ kind: "text", text: body.map((each) => each.trim()).join("\n") });
    }
  }
  return out;
}

function cells(line) {
  const bare = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return bare.split(/(?<!\\)\|/).map((cell) => cell.trim().replace(/\\\|/g, "|"));
}

function list(lines, i, out, depth) {
  const first = ITEM.exec(lines[i]), ordered = /\d/.test(first[2]), indent = first[1].length, items = [];
  while (i < lines.length) {
    const found = ITEM.exec(lines[i]);
    if (!found || found[1].length > indent + 1 || /\d/.test(found[2]) !== ordered || found[1].length < indent) break;
    const body = [found[3]], inner = found[1].length + found[2].length + 1;
    for (i++; i < lines.length; i++) {
      const next = ITEM.exec(lines[i]);
      if (BLANK.test(lines[i])) {
        const later = lines.slice(i + 1, i + 3).find((each) => !BLANK.test(each)) ?? "";
        if (!/^\s{2,}/.test(later) || later.search(/\S/) <= indent) break;
        body.push("");
      } else if (next ? next[1].length <= indent + 1 : lines[i].search(/\S/) <= indent && (FENCE.test(lines[i]) || HEADING.test(lines[i]))) break;
      else body.push(lines[i].slice(Math.min(lines[i].search(/\S/), inner)));
    }
    items.push(blocks(body.join("\n"), depth + 1));
    while (i < lines.length && BLANK.test(lines[i]) && ITEM.test(lines[i + 1] ?? "")) i++;
  }
  out.push({ kind: "list", ordered, start: ordered ? parseInt(first[2], 10) : 1, items });
  return i;
}

function node(block) {
  switch (block.kind) {
    case "code": return h("div", { class: "code" },
      h("div", { class: "bar" }, h("span", {}, block.language || "code"), copier("Copy code", () => block.text)),
      h("pre", { tabindex: "0" }, h("code", {}, block.text)));
    case "heading": return h(`h${Math.min(6, block.level + 2)}`, {}, ...inline(block.text));
    case "rule": return h("hr");
    case "quote": return h("blockquote", {}, ...block.blocks.map(node));
    case "list": return h(block.ordered ? "ol" : "ul", { start: block.start === 1 ? null : block.start },
      ...block.items.map((item) => h("li", {}, ...item.flatMap((each) =>
        each.kind === "text" && item.filter((one) => one.kind === "text").length < 2 ? inline(each.text) : [node(each)]))));
    case "table": return h("div", { class: "scroll", tabindex: "0" }, h("table", {},
      h("thead", {}, h("tr", {}, ...block.head.map((cell, i) => h("th", { class: block.sides[i] }, ...inline(cell))))),
      h("tbody", {}, ...block.rows.map((row) => h("tr", {}, ...block.head.map((_, i) =>
        h("td", { class: block.sides[i] }, ...inline(row[i] ?? ""))))))));
    default: return h("p", {}, ...inline(block.text));
  }
}

// Brings an element up to date with a text that grows: blocks that stay are left alone.
function show(element, text) {
  const known = element.shown ?? [], now = blocks(text).map((block) => [JSON.stringify(block), block]);
  let same = 0;
  while (same < known.length && same < now.length && known[same] === now[same][0]) same++;
  while (element.childNodes.length > same) element.lastChild.remove();
  element.append(...now.slice(same).map(([, block]) => node(block)));
  element.shown = now.map(([key]) => key);
}

function copier(label, text) {
  const button = h("button", { type: "button", class: "quiet" }, label);
  button.addEventListener("click", async () => {
    button.textContent = (await copy(text())) ? "Copied" : "Not copied";
    setTimeout(() => { button.textContent = label; }, 1500);
  });
  return button;
}

async function copy(text) {
  try { await navigator.clipboard.writeText(text); return true; } catch { /* not a secure address */ }
  const area = h("textarea", { class: "unseen" });
  area.value = text;
  document.body.append(area);
  area.select();
  try { return document.execCommand("copy"); } finally { area.remove(); }
}
