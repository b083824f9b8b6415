// What checks.py is for Python: `node with_NAME.mjs URL MODEL`, a line of JSON for each check.
// Packages are taken from the working directory, where environment.sh installed them.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

export const [URL, MODEL] = process.argv.slice(2);
export const KEY = "secret";
export const QUESTION = "What time is it in Rome?";
export const ASK = [{ role: "user", content: QUESTION }];
export const TOOL = {
  type: "function",
  function: {
    name: "get_time",
    description: "Tells the time in a city.",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  },
};

export function getTime({ city }) {
  if (typeof city !== "string") throw new Error(`city is ${city}`);
  return `noon in ${city}`;
}

const require = createRequire(`${process.cwd()}/`);

export async function need(name) {
  try {
    return await import(pathToFileURL(require.resolve(name)));
  } catch (error) {
    console.log(JSON.stringify({ missing: `${name}: ${error.message.split("\n")[0]}` }));
    process.exit(0);
  }
}

export async function raises(status, run) {
  try {
    await run();
  } catch (error) {
    const found = error.status ?? error.statusCode;
    if (found !== status) throw new Error(`${status} was to come: ${error}`);
    return;
  }
  throw new Error(`nothing was thrown, where ${status} should have been`);
}

export async function main(checks) {
  for (const [check, run] of Object.entries(checks)) {
    try {
      await run();
      console.log(JSON.stringify({ check, ok: true }));
    } catch (error) {
      console.log(JSON.stringify({ check, ok: false, why: String(error.stack).slice(0, 2500) }));
    }
  }
}
