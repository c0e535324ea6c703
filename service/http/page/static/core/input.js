// The image that the next one starts from, and its mask. What describes it is kept as JSON; its
// bytes are kept apart, by its id.

import { ApiError } from "./api.js";
import { dropInput, inputBlob, keepInput } from "./kept.js";
import { local, randomId, readJson } from "./storage.js";
import { change, fill, state } from "./store.js";
import { isPainted, maskOf } from "./strokes.js";

const INPUT = "sd-api.input";
const LOST = "The image that it starts from is not in this browser: choose it again.";

// The size is the image's own until another one is chosen.
export async function takeFile(file) {
  try {
    await take({ id: randomId(), name: file.name, strokes: [] }, file);
    fill({ width: "", height: "" });
  } catch {
    const detail = `${file.name} cannot be shown here; use a PNG, JPEG, WebP or AVIF image.`;
    change({ notice: { detail } });
  }
}

export async function takeResult(job, index) {
  const from = { job: job.id, index };
  const name = job.settings.prompt ?? "An image of the gallery";
  await take({ id: `${job.id}/${index}`, name, from, strokes: [] }, job.images[index].blob);
  fill({ width: "", height: "" });
}

// The image that an earlier job started from, if this browser still has it.
export async function takeAgain({ settings, input }) {
  const blob = input && (await inputBlob(input.id));
  if (blob) await take(input, blob);
  else removeInput(settings.image ? LOST : "");
}

export async function restoreInput() {
  const known = readJson(local, INPUT, null);
  const blob = known && (await inputBlob(known.id));
  if (blob) await take(known, blob).catch(() => removeInput());
}

async function take(known, blob) {
  const url = URL.createObjectURL(blob);
  const image = new Image();
  image.src = url;
  await image.decode();
  const { naturalWidth: width, naturalHeight: height } = image;
  await keepInput(known.id, blob);
  put({ ...known, url, width, height });
}

function put(input) {
  const before = state.input;
  if (before && before.url !== input?.url) URL.revokeObjectURL(before.url);
  if (input) local.set(INPUT, JSON.stringify(described(input)));
  else local.remove(INPUT);
  const { image, mask, ...faults } = state.faults;
  change({ input, faults, painting: state.painting && Boolean(input) });
  forgetInput(before);
}

// The bytes of an image go with the last that starts from it.
export function forgetInput(input) {
  const used = [state.input, ...state.jobs.map((job) => job.input)];
  if (input && !used.some((each) => each?.id === input.id)) dropInput(input.id);
}

export function removeInput(detail = "") {
  put(null);
  if (detail) change({ notice: { detail } });
}

export const setStrokes = (strokes) => put({ ...state.input, strokes });

export const hasMask = (input) => Boolean(input && isPainted(input.strokes));

// What is kept with a job: no address, which ends with the page.
export const described = ({ url, ...input }) => input;

// What the settings of a job say of its images until the service does.
export const marked = (input) => ({
  ...(input && { image: { width: input.width, height: input.height } }),
  ...(hasMask(input) && { mask: {} }),
});

// The images of a request. Results of stored jobs are named; the service has their bytes.
export async function partsOf(input, { named = state.durable } = {}) {
  if (!input) return {};
  const image = named && input.from ? input.from : await inputBlob(input.id);
  if (!image) throw new ApiError({ code: "input_lost", detail: LOST });
  return hasMask(input) ? { image, mask: await maskOf(input) } : { image };
}
