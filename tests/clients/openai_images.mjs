// Calls of the npm package openai against a service; arguments: its address, its key, and the
// folder that the package is installed in. Prints what each call gave, as JSON.
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { crc32, deflateSync } from "node:zlib";

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

async function eventsOf(stream) {
  const events = [];
  for await (const event of await stream) events.push(event);
  return events.map((event) => [
    event.type,
    event.partial_image_index ?? null,
    seen(event.b64_json),
    event.size,
  ]);
}

const streamed = (body, options) =>
  eventsOf(
    client.images.generate({ prompt: "a boat", size: "256x256", stream: true, ...body }, options),
  );

function chunk(kind, data) {
  const body = Buffer.concat([Buffer.from(kind), data]);
  const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)];
  length.writeUInt32BE(data.length);
  sum.writeUInt32BE(crc32(body));
  return Buffer.concat([length, body, sum]);
}

// An image of 256 by 256; its left half is transparent where it is not opaque.
function png(opaque = true) {
  const header = Buffer.alloc(13);
  header.writeUInt32BE(256, 0);
  header.writeUInt32BE(256, 4);
  header.set([8, 6], 8);
  const row = Buffer.alloc(1 + 256 * 4, 200);
  row[0] = 0;
  for (let x = 0; x < 256; x += 1) row[4 + 4 * x] = opaque || x >= 128 ? 255 : 0;
  const pixels = deflateSync(Buffer.concat(Array(256).fill(row)));
  const chunks = [chunk("IHDR", header), chunk("IDAT", pixels), chunk("IEND", Buffer.alloc(0))];
  return Buffer.concat([Buffer.from("89504e470d0a1a0a", "hex"), ...chunks]);
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
const broken = await toFile(Buffer.alloc(120_000, "\x89PNG"), "a.png");
const images = mkdtempSync(join(tmpdir(), "images-"));
const [opaque, transparent] = [true, false].map((each) => {
  const path = join(images, `${each}.png`);
  writeFileSync(path, png(each));
  return path;
});
// Read streams are sent in chunks, before the prompt, and as application/octet-stream.
const file = (path) => createReadStream(path);
const edit = (body) =>
  client.images.edit({ image: file(opaque), prompt: "a boat", steps: 2, strength: 0.5, ...body });
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
  "an edit": async () => shown(await edit({})),
  "an edit in another size": async () => shown(await edit({ size: "512x256" })),
  "an edit of files": async () => shown(await edit({ mask: file(transparent) })),
  "an edit of several": async () => {
    const answer = await edit({ image: [file(opaque), file(opaque), file(opaque)], n: 2 });
    return [...shown(answer), answer.warnings];
  },
  "an edit of a transparent image": async () => shown(await edit({ image: file(transparent) })),
  "an edit in a stream": () =>
    eventsOf(edit({ steps: 8, stream: true, partial_images: 1, output_format: "webp" })),
  "an opaque mask": () => failure(() => edit({ mask: file(opaque) })),
  "no image": () => failure(() => edit({ image: broken })),
  "a variation": async () =>
    shown(
      await client.images.createVariation({ image: file(opaque), n: 2, size: "256x256", steps: 2 }),
    ),
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
rmSync(images, { recursive: true });
console.log(JSON.stringify(results));
