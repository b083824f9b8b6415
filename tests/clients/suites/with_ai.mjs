// Vercel's `ai`, with its providers for compatible servers and for OpenAI (Responses).
import { KEY, MODEL, QUESTION, URL, getTime, main, need, raises } from "./checks.mjs";

const ai = await need("ai");
const { z } = await need("zod");
const { createOpenAI } = await need("@ai-sdk/openai");
const { createOpenAICompatible } = await need("@ai-sdk/openai-compatible");

function models(apiKey = KEY) {
  const settings = { name: "local", baseURL: `${URL}/v1`, apiKey };
  const compatible = createOpenAICompatible({ ...settings, supportsStructuredOutputs: true });
  return [compatible(MODEL), createOpenAI(settings)(MODEL)];
}

async function each(check) {
  for (const model of models()) await check(model);
}

const schema = z.object({ name: z.string(), age: z.number().int() });

await main({
  text: () =>
    each(async (model) => {
      const { text } = await ai.generateText({ model, prompt: QUESTION });
      if (!text) throw new Error(`no text from ${model.provider}`);
    }),
  stream: () =>
    each(async (model) => {
      let said = "";
      for await (const piece of ai.streamText({ model, prompt: QUESTION }).textStream) said += piece;
      if (!said) throw new Error(`no text from ${model.provider}`);
    }),
  tools: () =>
    each(async (model) => {
      const cities = [];
      const execute = async (given) => (cities.push(given.city), getTime(given));
      const get_time = ai.tool({ inputSchema: z.object({ city: z.string() }), execute });
      const asked = { model, prompt: QUESTION, tools: { get_time }, stopWhen: ai.stepCountIs(2) };
      const { steps } = await ai.generateText({ ...asked, toolChoice: "required" });
      if (!cities.length || steps.length !== 2) throw new Error(`${steps.length} steps`);
    }),
  structured: () =>
    each(async (model) => {
      const { object } = await ai.generateObject({ model, prompt: QUESTION, schema });
      if (!Number.isInteger(object.age)) throw new Error(`age is ${object.age}`);
    }),
  async errors() {
    for (const model of models("wrong")) {
      await raises(401, () => ai.generateText({ model, prompt: QUESTION, maxRetries: 0 }));
    }
  },
});
