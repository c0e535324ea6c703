// From the form to a request, and from metadata or files back to the form.

import { EMPTY } from "./store.js";

const TEXTS = ["sampler", "schedule", "model", "prompt_syntax", "long_prompts"];

// Treatment of long prompts that goes without saying.
const USUAL = { plain: "cut", a1111: "chunks" };

// These stay empty where they say nothing new.
const RARE = ["guidance_rescale", "eta", "clip_skip"];

// What is left empty is left to the service, which knows the defaults of the model.
export function requestOf(form) {
  const body = { prompt: form.prompt };
  if (form.negative_prompt) body.negative_prompt = form.negative_prompt;
  for (const [name, value] of Object.entries(form)) {
    if (name in body || value === "" || name === "adapters" || value === null) continue;
    body[name] = TEXTS.includes(name) || name.endsWith("prompt") ? value : Number(value);
  }
  if (form.adapters.length) {
    body.adapters = form.adapters.map(({ name, weight, text_weight }) => ({
      name,
      weight: Number(weight),
      ...(text_weight === undefined ? {} : { text_weight: Number(text_weight) }),
    }));
  }
  return body;
}

// Every field but the number of images gets a value, so that nothing of an earlier image stays.
export function formOf(settings, models, { seed = false } = {}) {
  const form = { ...EMPTY };
  delete form.num_images;
  for (const name of Object.keys(form)) {
    const value = settings[name];
    if (value !== undefined && value !== null && name !== "seed") form[name] = value;
  }
  form.adapters = form.adapters.map((each) => ({ ...each }));
  form.prompt_syntax = settings.prompt_syntax ?? "plain";
  if (form.long_prompts === USUAL[form.prompt_syntax]) form.long_prompts = "";
  const named = models.find((model) => model.id === form.model);
  if (!named || named.default) form.model = "";
  for (const name of RARE) {
    if (form[name] === (named ?? models[0])?.defaults[name]) form[name] = "";
  }
  if (seed && settings.seed !== undefined) form.seed = settings.seed;
  return form;
}

export const sizeOf = (settings, model) => ({
  width: Number(settings.width || model?.defaults.width || 512),
  height: Number(settings.height || model?.defaults.height || 512),
});

// Shapes of about the area that suits the model, within its limits.
export function shapesOf(model) {
  const { width, height } = model.limits;
  const side = Math.sqrt(model.defaults.width * model.defaults.height);
  const fit = (value, { minimum, maximum, multiple_of: multiple = 1 }) =>
    Math.min(Math.max(Math.round(value / multiple) * multiple, minimum), maximum);
  const shape = (name, ratio) => ({
    name,
    width: fit(side * Math.sqrt(ratio), width),
    height: fit(side / Math.sqrt(ratio), height),
  });
  return [shape("Square", 1), shape("Portrait", 2 / 3), shape("Landscape", 3 / 2)];
}
