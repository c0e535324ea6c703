// Calls of the npm package openai against a service; arguments: its address, its key, and the
// folder that the package is installed in. Prints what each call gave, as JSON.
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const [url, apiKey, folder] = process.argv.slice(2);
const packages = createRequire(`${folder}/`);
const { default: OpenAI, toFile } = await import(pathToFileURL(packages.resolve("openai")).href);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey });

const formats = { "89504e47": "PNG", 52494646: "WEBP", ffd8ffe0: "JPEG" };

// PNG alone says its size in a fixed place.
function seen(base64) {
  const bytes = Buffer.from(base64, "base64");
  const format = formats[bytes.subarray(0, 4).toString("hex")];
  return format === "PNG" ? `PNG ${bytes.readUInt32BE(16)}x${bytes.readUInt32BE(20)}` : format;
}

const shown = (answer) => answer.data.map((image) => seen(image.b64_json));

async function failure(call) {
  try {
    await call();
  } catch (error) {
    const status = error.status ?? null;
    const hasId = Boolean(error.requestID) || status === null;
    return [error.constructor.name, status, error.code ?? null, error.param ?? null, hasId];
  }
  return null;
}

async function streamed(body, options) {
  const events = [];
  const sent = { prompt: "a boat", size: "256x256", stream: true, ...body };
  for await (const event of await client.images.generate(sent, options)) events.push(event);
  return events.map((event) => [
    event.type,
    event.partial_image_index ?? null,
    seen(event.b64_json),
    event.size,
  ]);
}

async function linked() {
  const sent = { prompt: "a boat", size: "256x256", steps: 2, response_format: "url" };
  const [image] = (await client.images.generate(sent)).data;
  const got = Buffer.from(await (await fetch(image.url)).arrayBuffer());
  return [image.b64_json === undefined, seen(got.toString("base64"))];
}

async function usage() {
  const sent = {
    prompt: "a big boat",
    size: "256x256",
    negative_prompt: "fog",
    seed: 7,
    num_inference_steps: 2,
    guidance_scale: 3,
  };
  const { usage: used, data } = await client.images.generate(sent);
  return [used.input_tokens, used.output_tokens, used.total_tokens, data[0].seed];
}

const soon = { headers: { "X-Request-Timeout": "0.2" } };
const picture = await toFile(Buffer.alloc(120_000, "\x89PNG"), "a.png");
const generate = (body, options) => client.images.generate({ prompt: "a boat", ...body }, options);
const calls = {
  "only a prompt": async () => shown(await generate({})),
  "as for dall-e-3": async () =>
    shown(
      await generate({
        model: "dall-e-3",
        n: 2,
        size: "1792x1024",
        quality: "hd",
        style: "vivid",
        user: "u",
        response_format: "b64_json",
      }),
    ),
  "as for gpt-image-1": async () =>
    shown(
      await generate({
        model: "gpt-image-1",
        size: "auto",
        quality: "auto",
        background: "auto",
        moderation: "low",
        output_format: "webp",
        output_compression: 50,
      }),
    ),
  "more fields": usage,
  "a link": linked,
  "a stream": () => streamed({ partial_images: 2 }),
  "a stream of two": () => streamed({ n: 2, steps: 2 }),
  "a deadline in a stream": () => failure(() => streamed({}, soon)),
  "a deadline": () => failure(() => generate({}, soon)),
  "a wrong key": () =>
    failure(() => client.withOptions({ apiKey: "wrong" }).images.generate({ prompt: "a" })),
  "an unknown model": () => failure(() => generate({ model: "x" })),
  "too many": () => failure(() => generate({ n: 9 })),
  "an edit": () => failure(() => client.images.edit({ image: picture, prompt: "a" })),
  "a variation": () => failure(() => client.images.createVariation({ image: picture })),
  models: async () => {
    const found = [];
    for await (const each of client.models.list()) found.push([each.id, each.object, each.owned_by]);
    return found;
  },
  "a model": async () => (await client.models.retrieve("gpt-image-1")).id,
  "no model": () => failure(() => client.models.retrieve("organisation/name")),
};
const results = {};
for (const [name, call] of Object.entries(calls)) results[name] = await call();
console.log(JSON.stringify(results));
