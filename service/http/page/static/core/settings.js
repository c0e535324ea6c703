// From the form to a request, and from metadata or files back to the form.

import { EMPTY } from "./store.js";

const TEXTS = [
  "sampler", "schedule", "model", "prompt_syntax", "long_prompts", "resize", "mask_fill", "hires.resize",
];

// What only says something of an input image, and what only of its mask.
const OF_IMAGE = ["strength", "resize"];
const OF_MASK = ["mask_blur", "mask_padding", "mask_fill"];

// Treatment of long prompts that goes without saying.
const USUAL = { plain: "cut", a1111: "chunks" };

// Values of the service itself, which the form leaves empty.
const DEFAULTS = { resize: "crop", mask_fill: "original", mask_padding: -1, "hires.resize": "latent" };

// These stay empty where they say nothing new.
const RARE = ["guidance_rescale", "eta", "clip_skip"];

// What is left empty is left to the service, which knows the defaults of the model.
export function requestOf(form, { image = false, mask = false } = {}) {
  const body = { prompt: form.prompt };
  if (form.negative_prompt) body.negative_prompt = form.negative_prompt;
  for (const [name, value] of Object.entries(form)) {
    if (name in body || value === "" || name === "adapters" || value === null) continue;
    if (!asked(name, form, { image, mask })) continue;
    const [outer, inner] = name.split(".");
    const said = typed(name, value);
    if (inner) body[outer] = { ...body[outer], [inner]: said };
    else body[name] = said;
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

// Fields of an input image say nothing without one, and a second pass is of images without one.
function asked(name, form, { image, mask }) {
  const pads = image && Object.keys(form).some((each) => each.startsWith("pad.") && form[each] > 0);
  if (OF_IMAGE.includes(name)) return image;
  if (OF_MASK.includes(name)) return mask || pads;
  if (name === "mask_invert") return mask;
  if (name.startsWith("pad.")) return pads;
  if (name.startsWith("hires.")) return !image && form["hires.scale"] > 1;
  if (name === "subseed") return form.subseed_strength > 0;
  return true;
}

function typed(name, value) {
  if (typeof value === "boolean") return value;
  return TEXTS.includes(name) || name.endsWith("prompt") ? value : Number(value);
}

// Every field but the number of images gets a value, so that nothing of an earlier image stays.
export function formOf(settings, models, { seed = false } = {}) {
  const form = { ...EMPTY };
  delete form.num_images;
  for (const name of Object.keys(form)) {
    const [outer, inner] = name.split(".");
    const value = inner ? settings[outer]?.[inner] : settings[name];
    if (value !== undefined && value !== null && name !== "seed") form[name] = value;
    // In a field of a field 0 is nothing, as it is where nothing is said.
    if ((inner && value === 0) || form[name] === DEFAULTS[name]) form[name] = "";
  }
  if (!form.mask_invert) form.mask_invert = "";
  const { hires } = settings;
  if (hires?.width && !hires.scale) form["hires.scale"] = hires.width / sizeOf(settings).width;
  if (!form.subseed_strength) form.subseed_strength = "";
  if (!seed || !form.subseed_strength) form.subseed = "";
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

// An image that is started from gives its own shape.
export const sizeOf = (settings, model, input = null) => ({
  width: Number(settings.width || input?.width || model?.defaults.width || 512),
  height: Number(settings.height || input?.height || model?.defaults.height || 512),
});

// Width and height of the second pass.
export function secondSize({ width, height, hires }) {
  const side = (value) => Math.floor((value * hires.scale) / 8) * 8;
  return hires.scale ? [side(width), side(height)] : [hires.width, hires.height];
}

// The way in which an image is made, in a word or two; "" for one of a text alone.
export function modeOf({ image, mask, pad, hires, subseed_strength: varied }) {
  if (pad) return "Outpainted";
  if (mask) return "Inpainted";
  if (image) return "From image";
  if (hires) return "Hires";
  return varied ? "Variation" : "";
}

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
