// What the conversation looks like: one element a message, kept up to date as it grows.

const $ = (id) => document.getElementById(id);
const button = (label, onclick, more = {}) => h("button", { type: "button", class: "quiet", onclick, ...more }, label);

function pretty(text) {
  try { return JSON.stringify(JSON.parse(text), null, 2); } catch { return text; }
}

function userView(message, index) {
  const media = (message.media ?? []).map(({ url, kind, name }) => kind === "image"
    ? h("img", { src: url, alt: name }) : h("span", { class: "chip" }, name));
  return h("article", { class: "user", "aria-label": "You" },
    h("div", { class: "bubble" }, media.length ? h("div", { class: "media" }, ...media) : null,
      message.content ? h("p", { class: "said" }, message.content) : null),
    h("div", { class: "under" }, button("Edit", () => edit(index)), copier("Copy", () => message.content)));
}

class AnswerView {
  constructor(answer, index) {
    this.answer = answer;
    this.thinking = h("div");
    this.thought = h("details", { class: "thought", hidden: true }, h("summary", {}, "Thinking"), this.thinking);
    this.text = h("div", { class: "text" });
    this.calls = h("div", { class: "calls" });
    this.figures = h("span", { class: "figures" });
    this.wait = h("span", { class: "wait", "aria-hidden": "true" }, h("i"), h("i"), h("i"));
    this.buttons = h("span", {}, copier("Copy", () => answer.content), button("Again", () => again(index)));
    this.element = h("article", { class: "answer", "aria-label": "Answer" }, this.thought, this.text, this.wait, this.calls,
      h("div", { class: "under" }, this.figures, this.buttons));
  }

  update(running, open) {
    const { answer } = this;
    this.element.setAttribute("aria-busy", String(running));
    this.thought.hidden = !answer.thinking;
    if (answer.thinking) show(this.thinking, answer.thinking);
    if (running) this.thought.open = Boolean(answer.thinking && !answer.content);
    show(this.text, answer.content);
    this.wait.hidden = !running || Boolean(answer.content || answer.thinking || answer.tool_calls);
    this.figures.replaceChildren(...figures(answer, running).flatMap((each, i) => [i ? " · " : "", h("span", {}, each)]));
    this.buttons.hidden = running;
    if (answer.tool_calls && !running) this.calls.replaceChildren(callsView(answer.tool_calls, open));
  }
}

// The calls of an answer; where they are `open`, with fields for their results.
function callsView(calls, open) {
  const cards = calls.map((call) => {
    const head = h("div", { class: "bar" }, h("span", {}, h("b", {}, call.function.name)), h("span", { class: "tag" }, "tool call"));
    const body = h("pre", { tabindex: "0" }, h("code", {}, pretty(call.function.arguments)));
    const field = open && h("label", {}, h("span", {}, `Result of ${call.function.name}`),
      h("textarea", { rows: "2", name: call.id, placeholder: "Text or JSON, as the tool would answer", spellcheck: "false" }));
    return h("div", { class: "code call" }, head, body, field || null);
  });
  if (!open) return h("div", {}, ...cards);
  return h("form", { onsubmit: (event) => { event.preventDefault(); giveResults(calls, new FormData(event.target)); } },
    ...cards, h("button", { class: "main" }, calls.length > 1 ? "Send results" : "Send result"));
}

function resultView(message, name) {
  return h("article", { class: "result", "aria-label": `Result of ${name}` },
    h("div", { class: "code" }, h("div", { class: "bar" }, h("span", {}, h("b", {}, name)), h("span", { class: "tag" }, "result")),
      h("pre", { tabindex: "0" }, h("code", {}, pretty(message.content)))));
}

function errorView(error, retry) {
  return h("div", { class: "error", role: "alert" }, h("p", {}, error.message), button("Try again", retry));
}

function announce(text) {
  const status = $("status");
  status.textContent = "";
  setTimeout(() => { status.textContent = text; }, 50); // a change of its own, so that it is read
}
