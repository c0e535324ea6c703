// The bytes of images: fetched once, with the key, a few at a time.

import { call } from "./api.js";
import { keep } from "./kept.js";
import { jobOf, patchJob } from "./store.js";

// Browsers open six connections to a service at most, and event streams need some.
const AT_ONCE = 2;
const waiting = [];
let busy = 0;

const fetching = new Set();

export const shown = (blob) => ({ blob, url: URL.createObjectURL(blob) });

export function blobOf(base64, type = "image/png") {
  const text = atob(base64);
  return new Blob([Uint8Array.from(text, (each) => each.charCodeAt(0))], { type });
}

// Fetch the images of a job that has none here yet; one that expired says so.
export async function wantImages(id) {
  const job = jobOf(id);
  if (!job || job.state !== "succeeded" || job.images.length || job.gone || fetching.has(id)) return;
  fetching.add(id);
  try {
    const images = [];
    for (let index = 0; index < job.count; index += 1) images.push(await turn(id, index));
    patchJob(id, { images });
    await keep(jobOf(id));
  } catch (error) {
    patchJob(id, { gone: error.status === 410 || error.status === 404, error });
  } finally {
    fetching.delete(id);
  }
}

async function turn(id, index) {
  if (busy >= AT_ONCE) await new Promise((resolve) => waiting.push(resolve));
  busy += 1;
  try {
    const answer = await call("GET", `/jobs/${id}/image?format=png&index=${index}`);
    return shown(await answer.blob());
  } finally {
    busy -= 1;
    waiting.shift()?.();
  }
}
