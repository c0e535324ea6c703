// Prints the headers that the package openai sends from a page in a browser, which asks for each
// of them in a preflight. Run in .venvs/clients/node_modules by its tests.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const packages = createRequire(process.argv[2] + "/");
globalThis.window = { document: {} };
Object.defineProperty(globalThis, "navigator", { value: { userAgent: "Chrome/156.0.0" } });
const { default: OpenAI } = await import(pathToFileURL(packages.resolve("openai")).href);

const found = new Set();
const client = new OpenAI({
  apiKey: "a",
  organization: "b",
  project: "c",
  baseURL: "http://127.0.0.1:8000/v1",
  dangerouslyAllowBrowser: true,
  timeout: 60000,
  fetch: async (_url, init) => {
    for (const name of new Headers(init.headers).keys()) found.add(name);
    return Response.json({ created: 1, data: [] });
  },
});
await client.images.generate({ prompt: "a boat" });
console.log(JSON.stringify([...found].sort()));
