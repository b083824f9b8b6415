// The server's API: one conversation in, events of the answer out.

class Refused extends Error {
  constructor(status, message) { super(message); this.status = status; }
}

async function ask(path, options = {}) {
  const headers = { ...(options.body && { "Content-Type": "application/json" }) };
  if (remembered.key) headers.Authorization = `Bearer ${remembered.key}`;
  let response;
  try { response = await fetch(path, { ...options, headers, cache: "no-store" }); }
  catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused(0, "The server does not answer. Is it still running?");
  }
  if (response.ok) return response;
  let message = `${response.status} ${response.statusText}`;
  try { message = (await response.json()).error.message ?? message; } catch { /* not the server's own words */ }
  throw new Refused(response.status, message);
}

// The data of server-sent events, as they come.
async function* events(response) {
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let waiting = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    waiting += value;
    const whole = waiting.split(/\r?\n\r?\n/);
    waiting = whole.pop();
    for (const event of whole) {
      const data = event.split(/\r?\n/).filter((line) => line.startsWith("data:")).map((line) => line.slice(5).replace(/^ /, ""));
      if (data.length && data[0] !== "[DONE]") yield JSON.parse(data.join("\n"));
    }
  }
}

function wireMessage({ role, content, media, tool_calls, tool_call_id }) {
  if (role === "tool") return { role, tool_call_id, content };
  if (!media?.length) return { role, content: content || (tool_calls ? null : ""), ...(tool_calls && { tool_calls }) };
  const parts = media.map(({ url, kind, name }) => kind === "image"
    ? { type: "image_url", image_url: { url } }
    : { type: "input_audio", input_audio: { data: url.slice(url.indexOf(",") + 1), format: name.split(".").pop() } });
  return { role, content: content ? [...parts, { type: "text", text: content }] : parts };
}

const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"];

function requestOf(messages, settings) {
  const body = { messages: messages.map(wireMessage), stream: true, stream_options: { include_usage: true } };
  if (settings.system?.trim()) body.messages.unshift({ role: "system", content: settings.system });
  for (const name of NUMBERS) if (settings[name] !== "" && settings[name] != null) body[name] = Number(settings[name]);
  const tools = readTools(settings.tools);
  if (tools.length) {
    body.tools = tools;
    const choice = settings.tool_choice ?? "auto";
    if (choice !== "auto") body.tool_choice = ["none", "required"].includes(choice) ? choice : { type: "function", function: { name: choice } };
  }
  if (settings.schema?.trim()) body.response_format = { type: "json_schema", json_schema: { name: "answer", schema: readObject(settings.schema) } };
  return body;
}

// OpenAI's list of tools; also a bare function, and functions without the frame around them.
function readTools(text) {
  if (!text?.trim()) return [];
  const value = JSON.parse(text), given = value.tools ?? value;
  return (Array.isArray(given) ? given : [given]).map((tool) => {
    const framed = tool?.function ? tool : { type: "function", function: tool };
    if (typeof framed.function?.name !== "string") throw new Error("every tool needs a name");
    return framed;
  });
}

function readObject(text) {
  const value = JSON.parse(text);
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw new Error("a schema is a JSON object");
  return value;
}

// Streams the next answer into `answer`, calling `changed` after each event; throws what went wrong.
async function stream(messages, settings, answer, signal, changed) {
  const started = performance.now(), times = answer.times = { first: 0, last: 0, steps: 0 };
  const response = await ask("v1/chat/completions", { method: "POST", body: JSON.stringify(requestOf(messages, settings)), signal });
  for await (const event of events(response)) {
    if (event.error) throw new Refused(event.error.code ?? 500, event.error.message);
    if (event.usage) answer.usage = event.usage;
    if (event.timings) answer.timings = event.timings;
    const choice = event.choices[0];
    if (!choice) continue;
    const now = performance.now() - started, { delta } = choice;
    times.first ||= now;
    times.last = now;
    if (delta.content || delta.reasoning_content) times.steps++;
    answer.content += delta.content ?? "";
    answer.thinking += delta.reasoning_content ?? "";
    if (delta.tool_calls) {
      answer.tool_calls = [...(answer.tool_calls ?? []), ...delta.tool_calls.map(({ id, type, function: call }) => ({ id, type, function: call }))];
    }
    answer.reason = choice.finish_reason ?? answer.reason;
    changed();
  }
}

// "42 tokens", "31.2 tokens/s", ...: the server's own timings where it tells them, else those seen here.
function figures({ usage, timings, times, reason, stopped }, running) {
  if (!times?.first) return [];
  const tokens = usage?.completion_tokens ?? times.steps, seconds = (times.last - times.first) / 1000;
  const speed = timings?.predicted_per_second || (seconds > 0.1 ? (tokens - 1) / seconds : tokens / (times.last / 1000));
  const said = [`${usage ? "" : "about "}${tokens} ${tokens === 1 ? "token" : "tokens"}`];
  if (tokens > 1) said.push(`${speed.toFixed(1)} tokens/s`);
  if (running) return said;
  said.push(`first after ${(times.first / 1000).toFixed(2)} s`);
  if (usage) said.push(`prompt ${usage.prompt_tokens}` + (usage.prompt_tokens_details?.cached_tokens ? `, ${usage.prompt_tokens_details.cached_tokens} cached` : ""));
  if (stopped) said.push("stopped");
  else if (reason === "length") said.push("cut at the limit of tokens");
  return said;
}
