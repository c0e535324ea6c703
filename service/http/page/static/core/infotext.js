// Settings of an image as AUTOMATIC1111 and this service write them into files.

const PAIR = /\s*([\w ][\w \-/]*):\s*("(?:\\.|[^\\"])*"|[^,]*)(?:,|$)/g;
const FEWEST = 3;
const MOST_STEPS = 1000;
const USUAL_STRENGTH = 0.7;

// What a text says, and the values that this service does not know; null for other texts.
export function parsedInfotext(text, models) {
  const lines = text.replaceAll("\r", "").trim().split("\n");
  const pairs = [...lines.at(-1).matchAll(PAIR)].map(([, name, value]) => [name.trim(), plain(value)]);
  const facts = Object.fromEntries(pairs);
  if (pairs.length < FEWEST || !("Steps" in facts)) return null;
  const texts = lines.slice(0, -1);
  const from = texts.findIndex((line) => line.startsWith("Negative prompt:"));
  const [before, after] = from < 0 ? [texts, []] : [texts.slice(0, from), texts.slice(from)];
  const unknown = [];
  const settings = {
    prompt: before.join("\n").trim(),
    negative_prompt: after.join("\n").replace("Negative prompt:", "").trim(),
    prompt_syntax: "a1111",
    ...numbers(facts),
    ...passes(facts),
    ...modelIn(facts, models, unknown),
  };
  Object.assign(settings, samplerIn(facts, models, settings.model, unknown));
  return { settings, unknown };
}

function plain(value) {
  try {
    return value.startsWith('"') ? JSON.parse(value) : value.trim();
  } catch {
    return value;
  }
}

const NUMBERS = {
  Steps: "steps",
  "CFG scale": "guidance_scale",
  Seed: "seed",
  "Clip skip": "clip_skip",
  "CFG rescale": "guidance_rescale",
  Eta: "eta",
  "Variation seed": "subseed",
  "Variation seed strength": "subseed_strength",
  "Mask blur": "mask_blur",
};

function numbers(facts) {
  const found = {};
  for (const [label, name] of Object.entries(NUMBERS)) {
    if (facts[label] && Number.isFinite(Number(facts[label]))) found[name] = Number(facts[label]);
  }
  const size = /^(\d+)x(\d+)$/.exec(facts.Size ?? "");
  if (size) Object.assign(found, { width: Number(size[1]), height: Number(size[2]) });
  return found;
}

// The strength is that of the second pass where there is one.
function passes(facts) {
  const strength = facts["Denoising strength"] && Number(facts["Denoising strength"]);
  const scale = Number(facts["Hires upscale"]);
  if (!scale) return strength ? { strength } : {};
  const hires = { scale };
  if (strength) hires.strength = strength;
  const done = Number(facts["Hires steps"]);
  if (done) hires.steps = stepsFor(done, strength || USUAL_STRENGTH);
  if (facts["Hires upscaler"] === "Lanczos") hires.resize = "lanczos";
  return { hires };
}

// The text has the steps that were done, a request those of which the strength takes its share.
function stepsFor(done, strength) {
  let steps = done;
  while (Math.floor(steps * strength) < done && steps < MOST_STEPS) steps += 1;
  return steps;
}

const bare = (name) => name.split("/").at(-1).replace(/\.(safetensors|ckpt)$/, "").toLowerCase();

function modelIn(facts, models, unknown) {
  const named = facts.Model;
  if (!named) return {};
  const found = models.find((each) => each.version === named || bare(each.id) === bare(named));
  if (!found) unknown.push(`the model ${named}`);
  return found ? { model: found.id } : {};
}

// Newer files name sampler and schedule apart, older ones together: DPM++ 2M Karras.
function samplerIn(facts, models, id, unknown) {
  if (!facts.Sampler) return {};
  const samplers = (models.find((each) => each.id === id) ?? models[0])?.samplers ?? [];
  const all = new Set(samplers.flatMap(({ schedules }) => schedules));
  let label = facts.Sampler.toLowerCase();
  let schedule = named(facts["Schedule type"] ?? "");
  for (const each of all) {
    const end = ` ${each.replaceAll("_", " ")}`;
    if (!label.endsWith(end)) continue;
    label = label.slice(0, -end.length);
    schedule ||= each;
  }
  const found = samplers.find(
    (each) => each.label.toLowerCase() === label || each.name === named(label).replace(/^k_/, ""),
  );
  if (!found) unknown.push(`the sampler ${facts.Sampler}`);
  if (found && schedule && !found.schedules.includes(schedule)) {
    unknown.push(`the schedule ${facts["Schedule type"] ?? schedule} with ${found.label}`);
    schedule = "";
  }
  return found ? { sampler: found.name, ...(schedule ? { schedule } : {}) } : {};
}

const named = (label) => label.trim().toLowerCase().replaceAll(" ", "_");
