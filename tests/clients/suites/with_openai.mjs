// npm's `openai`: chat completions and Responses.
import { ASK, KEY, MODEL, QUESTION, TOOL, URL, getTime, main, need, raises } from "./checks.mjs";

const OpenAI = (await need("openai")).default;
const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: KEY });
const stranger = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "wrong" });
const schema = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
};

await main({
  async text() {
    const chat = await client.chat.completions.create({ model: MODEL, messages: ASK });
    if (!chat.choices[0].message.content) throw new Error("no text in chat");
    const answer = await client.responses.create({ model: MODEL, input: QUESTION });
    if (!answer.output_text) throw new Error("no text in the response");
  },
  async stream() {
    let said = "";
    const chunks = { model: MODEL, messages: ASK, stream: true };
    for await (const chunk of await client.chat.completions.create(chunks)) {
      said += chunk.choices[0]?.delta?.content ?? "";
    }
    if (!said) throw new Error("no text in chat");
    const stream = client.responses.stream({ model: MODEL, input: QUESTION });
    for await (const event of stream) if (!event.type) throw new Error("an event has no type");
    if (!(await stream.finalResponse()).output_text) throw new Error("no text in the response");
  },
  async tools() {
    const messages = [...ASK];
    const asked = { model: MODEL, tools: [TOOL], tool_choice: "required" };
    const answer = await client.chat.completions.create({ ...asked, messages });
    messages.push(answer.choices[0].message);
    for (const call of answer.choices[0].message.tool_calls) {
      const content = getTime(JSON.parse(call.function.arguments));
      messages.push({ role: "tool", tool_call_id: call.id, content });
    }
    if (messages.length < 3) throw new Error("the tool was not called");
    await client.chat.completions.create({ model: MODEL, tools: [TOOL], messages });
  },
  async structured() {
    const format = { type: "json_schema", json_schema: { name: "person", schema, strict: true } };
    const asked = { model: MODEL, messages: ASK, response_format: format };
    const answer = await client.chat.completions.create(asked);
    if (!("age" in JSON.parse(answer.choices[0].message.content))) throw new Error("no age");
  },
  async errors() {
    await raises(401, () => stranger.chat.completions.create({ model: MODEL, messages: ASK }));
    await raises(400, () => client.chat.completions.create({ model: MODEL, messages: [] }));
  },
});
