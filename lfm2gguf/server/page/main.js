// State and events. Settings stay in this browser, the conversation and the key in this tab.

const EXAMPLE_TOOL = [{ type: "function", function: {
  name: "get_weather", description: "Tells the weather in a city.",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] } } }];

function stored(storage, name, otherwise) {
  try { return JSON.parse(storage().getItem(`lfm2gguf.${name}`)) ?? otherwise; } catch { return otherwise; }
}
function store(storage, name, value) { // where storage is off or full the page works on without it
  try { storage().setItem(`lfm2gguf.${name}`, JSON.stringify(value)); } catch { try { storage().removeItem(`lfm2gguf.${name}`); } catch { /* off */ } }
}
const inTab = () => sessionStorage, inBrowser = () => localStorage;

const remembered = {
  key: stored(inTab, "key", ""), settings: stored(inBrowser, "settings", {}),
  messages: stored(inTab, "messages", []), theme: stored(inBrowser, "theme", ""),
};
let own = {}, taken = [], media = [], running = null, shownAnswer = null, frame = 0;

// --- the conversation ---------------------------------------------------------------------------

function draw() {
  const { messages } = remembered, names = {}, log = $("log");
  const views = messages.map((message, i) => {
    if (message.role === "user") return userView(message, i);
    if (message.role === "tool") return resultView(message, names[message.tool_call_id] ?? "tool");
    const view = new AnswerView(message, i);
    for (const call of message.tool_calls ?? []) names[call.id] = call.function.name;
    view.update(false, i === messages.length - 1);
    return view.element;
  });
  log.replaceChildren(...views);
  $("empty").hidden = messages.length > 0;
  $("new").disabled = messages.length === 0;
  store(inTab, "messages", messages);
}

async function generate() {
  const { messages, settings } = remembered;
  const answer = { role: "assistant", content: "", thinking: "" };
  const view = shownAnswer = new AnswerView(answer, messages.length);
  running = new AbortController();
  draw();
  $("log").append(view.element);
  view.update(true);
  setBusy(true);
  toEnd();
  let failed = null;
  try {
    await stream(messages, settings, answer, running.signal, () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        if (shownAnswer !== view) return;
        const follow = nearEnd();
        view.update(true);
        if (follow) toEnd();
      });
    });
  } catch (error) {
    if (error.name === "AbortError") answer.stopped = true;
    else failed = error;
  }
  running = shownAnswer = null;
  const follow = nearEnd();
  if (answer.content || answer.thinking || answer.tool_calls) messages.push(answer);
  draw();
  setBusy(false);
  if (failed) fail(failed);
  else if (messages.at(-1) !== answer) fail({ message: answer.stopped ? "Stopped before the first token." : "The model ended its answer without a word." });
  else if (answer.tool_calls) {
    announce(`The model calls ${answer.tool_calls.map((call) => call.function.name).join(", ")}. Enter its result.`);
    $("log").querySelector(".calls textarea")?.focus({ preventScroll: true });
  } else announce(answer.stopped ? "Stopped." : answer.content || "The answer is empty.");
  if (follow) toEnd();
}

function fail(error) {
  $("log").append(errorView(error, () => generate()));
  if (error.status === 401) askForKey(error.message);
}

function send(text) {
  const content = text.trim();
  if (running || (!content && !media.length)) return;
  remembered.messages.push({ role: "user", content, ...(media.length && { media }) });
  media = [];
  drawMedia();
  $("input").value = "";
  fit();
  generate();
}

function giveResults(calls, form) {
  for (const { id } of calls) remembered.messages.push({ role: "tool", tool_call_id: id, content: String(form.get(id) ?? "") });
  $("input").focus();
  generate();
}

function again(index) {
  if (running) return;
  remembered.messages.length = index;
  generate();
}

function edit(index) {
  if (running) return;
  const message = remembered.messages[index];
  remembered.messages.length = index;
  media = message.media ?? [];
  $("input").value = message.content;
  draw(); drawMedia(); fit();
  $("input").focus();
}

function setBusy(busy) {
  $("send").hidden = busy;
  $("stop").hidden = !busy;
  $("new").disabled = busy || !remembered.messages.length;
  if (busy) announce("Answering.");
}

const scroller = () => $("scroll");
const nearEnd = () => scroller().scrollHeight - scroller().scrollTop - scroller().clientHeight < 80;
const toEnd = () => { scroller().scrollTop = scroller().scrollHeight; };

// --- the field for messages ---------------------------------------------------------------------

function fit() {
  const input = $("input");
  input.style.height = "auto";
  input.style.height = `${Math.min(input.scrollHeight, 220)}px`;
}

function drawMedia() {
  $("media").replaceChildren(...media.map(({ url, kind, name }, i) => h("span", { class: "chip" },
    kind === "image" ? h("img", { src: url, alt: "" }) : null, h("span", {}, name),
    button("×", () => { media = media.filter((_, j) => j !== i); drawMedia(); }, { "aria-label": `Remove ${name}` }))));
}

async function attach(files) {
  for (const file of files) {
    const kind = file.type.split("/")[0];
    if (!taken.includes(kind)) continue;
    try {
      media = [...media, { kind, name: file.name || kind, url: kind === "image" ? await picture(file) : await dataUrl(file) }];
    } catch { announce(`${file.name} cannot be read.`); }
  }
  drawMedia();
}

// Whatever the browser can show becomes JPEG or PNG, upright and of a size that a model uses.
async function picture(file) {
  const bitmap = await createImageBitmap(file), scale = Math.min(1, 2048 / Math.max(bitmap.width, bitmap.height));
  const canvas = h("canvas", { width: Math.max(1, Math.round(bitmap.width * scale)), height: Math.max(1, Math.round(bitmap.height * scale)) });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  return canvas.toDataURL(file.type === "image/jpeg" ? "image/jpeg" : "image/png", 0.92);
}

function dataUrl(file) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = () => reject(reader.error);
    reader.readAsDataURL(file);
  });
}

// --- settings, key, theme -----------------------------------------------------------------------

function checked(field, read) {
  let problem = "";
  try { read(field.value); } catch (error) { problem = error.message; }
  field.setAttribute("aria-invalid", String(Boolean(problem)));
  $(`${field.id}-problem`).textContent = problem;
  return !problem;
}

function drawChoices() {
  let names = [];
  try { names = readTools($("tools").value).map((tool) => tool.function.name); } catch { /* said below the field */ }
  const chosen = remembered.settings.tool_choice ?? "auto";
  $("tool_choice").replaceChildren(...[["auto", "the model decides"], ["none", "no tool"], ["required", "some tool"],
    ...names.map((name) => [name, name])].map(([value, label]) => h("option", { value, selected: value === chosen }, label)));
}

function fillSettings() {
  for (const field of $("fields").elements) if (field.name) field.value = remembered.settings[field.name] ?? "";
  for (const name of NUMBERS) $(name).placeholder = name === "seed" ? "random" : own[name] ?? (name === "max_tokens" ? "no limit" : "");
  drawChoices();
  checked($("tools"), readTools);
  checked($("schema"), (text) => text.trim() && readObject(text));
}

function readSettings() {
  const { settings } = remembered;
  for (const field of $("fields").elements) {
    if (!field.name || (field.getAttribute("aria-invalid") === "true") || !field.validity.valid) continue;
    settings[field.name] = field.value;
  }
  store(inBrowser, "settings", settings);
  $("set").hidden = !Object.entries(settings).some(([name, value]) => value !== "" && !(name === "tool_choice"));
}

function askForKey(message) {
  $("key-message").textContent = message;
  if (!$("key").open) $("key").showModal();
}

function theme(value) {
  remembered.theme = value;
  if (value) document.documentElement.dataset.theme = value;
  else delete document.documentElement.dataset.theme;
  store(inBrowser, "theme", value);
}

async function connect() {
  try {
    const { data: [{ id, device, context_length }] } = await (await ask("v1/models")).json();
    document.title = `${id} · lfm2gguf`;
    $("model").textContent = id;
    $("facts").textContent = `${device.split(",")[0]} · ${context_length.toLocaleString("en")} tokens of context`;
    $("greeting").textContent = `Talk with ${id}`;
    const props = await (await ask("props")).json();
    own = props.default_generation_settings.params;
    taken = [props.modalities.vision && "image", props.modalities.audio && "audio"].filter(Boolean);
    $("attach").hidden = !taken.length;
    $("attach").setAttribute("aria-label", `Attach ${taken.map((kind) => kind === "image" ? "images" : "sound").join(" or ")}`);
    $("file").accept = taken.map((kind) => `${kind}/*`).join();
  } catch (error) {
    if (error.status === 401) askForKey(remembered.key ? "This key is not one of the server's." : "This server asks for a key.");
    else if (error.status !== 404) fail(error);
  }
}

// --- events -------------------------------------------------------------------------------------

$("composer").addEventListener("submit", (event) => { event.preventDefault(); send($("input").value); });
$("input").addEventListener("input", fit);
$("input").addEventListener("keydown", (event) => { // on a phone Enter begins a line, as its keyboard says
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing && !matchMedia("(pointer: coarse)").matches) {
    event.preventDefault();
    send($("input").value);
  }
});
$("input").addEventListener("paste", (event) => attach(event.clipboardData.files));
$("stop").addEventListener("click", () => { running?.abort(); $("input").focus(); });
document.addEventListener("keydown", (event) => { if (event.key === "Escape" && running && !document.querySelector("dialog[open]")) running.abort(); });
$("attach").addEventListener("click", () => $("file").click());
$("file").addEventListener("change", async () => { await attach($("file").files); $("file").value = ""; $("input").focus(); });
for (const name of ["dragover", "drop"]) document.addEventListener(name, (event) => {
  if (![...event.dataTransfer.types].includes("Files")) return;
  event.preventDefault();
  if (name === "drop") attach(event.dataTransfer.files);
});
$("new").addEventListener("click", () => {
  if (remembered.messages.length > 2 && !confirm("Begin a new conversation? This one is not kept.")) return;
  remembered.messages.length = 0;
  draw();
  $("input").focus();
});
$("open-settings").addEventListener("click", () => { fillSettings(); $("settings").showModal(); });
$("fields").addEventListener("input", ({ target }) => {
  if (target.id === "tools") { checked(target, readTools); drawChoices(); }
  if (target.id === "schema") checked(target, (text) => text.trim() && readObject(text));
  readSettings();
});
$("example").addEventListener("click", () => {
  $("tools").value = JSON.stringify(EXAMPLE_TOOL, null, 2);
  $("tools").dispatchEvent(new Event("input", { bubbles: true }));
});
$("reset").addEventListener("click", () => { remembered.settings = {}; fillSettings(); readSettings(); });
for (const dialog of document.querySelectorAll("dialog")) dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
$("key-form").addEventListener("submit", () => {
  remembered.key = $("key-field").value.trim();
  store(inTab, "key", remembered.key);
  $("key-field").value = "";
  for (const error of document.querySelectorAll(".error")) error.remove();
  connect();
});
$("theme").addEventListener("click", () => {
  const dark = matchMedia("(prefers-color-scheme: dark)").matches, now = remembered.theme || (dark ? "dark" : "light");
  theme(now === "dark" ? "light" : "dark");
});
for (const one of document.querySelectorAll(".try")) one.addEventListener("click", () => {
  if (one.dataset.tool && !remembered.settings.tools?.trim()) {
    remembered.settings.tools = JSON.stringify(EXAMPLE_TOOL, null, 2);
    fillSettings(); readSettings();
  }
  send(one.textContent);
});
$("scroll").addEventListener("scroll", () => { $("down").hidden = nearEnd(); }, { passive: true });
$("down").addEventListener("click", toEnd);

theme(remembered.theme);
fillSettings();
readSettings();
draw();
connect();
toEnd();
