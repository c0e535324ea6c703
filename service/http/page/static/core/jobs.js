// One job: sent, finished early, cancelled. follow.js watches those that are not over.

import { ApiError, call } from "./api.js";
import { described, forgetInput, marked, partsOf } from "./input.js";
import { follow, followed } from "./follow.js";
import { blobOf, shown } from "./images.js";
import { drop, keep } from "./kept.js";
import { change, hide, isOver, jobOf, patchJob, putJob, state } from "./store.js";
import { randomId, tellOthers } from "./storage.js";

// Without stored jobs each request holds a connection until its images come, and a browser has
// six of them for all of this page's windows.
const MOST_HELD = 2;

const RETRIES_MS = [1000, 2000, 4000];
const aborts = new Map();

// With an image to start from, as image/input.js describes it.
export async function submit(settings, input = null) {
  const id = randomId();
  putJob({
    id,
    settings: { ...settings, ...marked(input) },
    input: input && described(input),
    state: "sending",
    created: Date.now() / 1000,
    count: settings.num_images ?? 1,
    images: [],
  });
  change({ selected: id, faults: {}, notice: null });
  await (state.durable ? accept(id, settings) : waitOrHold(id));
}

// The job is on the service's disk when this is answered. Sent again it is not done twice.
async function accept(id, settings) {
  try {
    const accepted = await (await accepting(id, settings)).json();
    renamed(id, accepted.id);
    followed(accepted);
    await keep(jobOf(accepted.id));
    tellOthers();
    follow();
  } catch (error) {
    if (error.code === "jobs_off") {
      change({ durable: false });
      await waitOrHold(id);
    } else {
      refusedOrFailed(id, error);
    }
  }
}

// A result that the service has no more is sent from here.
async function accepting(id, settings) {
  const { input } = jobOf(id);
  const send = async (named) => {
    const body = { ...settings, ...(await partsOf(input, { named })) };
    const headers = { "Idempotency-Key": named ? id : `${id}-sent` };
    return patiently(() => call("POST", "/jobs", { body, headers }));
  };
  try {
    return await send(true);
  } catch (error) {
    if (!input?.from || ![404, 410].includes(error.status) || error.code === "jobs_off") throw error;
    return send(false);
  }
}

async function patiently(send) {
  for (const pause of RETRIES_MS) {
    try {
      return await send();
    } catch (error) {
      if (error.code !== "unreachable") throw error;
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
  return send();
}

function renamed(from, to) {
  const job = jobOf(from);
  change({
    jobs: state.jobs.filter((each) => each.id !== from && each.id !== to),
    selected: state.selected === from ? to : state.selected,
  });
  putJob({ ...job, id: to, state: "queued" });
}

async function waitOrHold(id) {
  if (aborts.size >= MOST_HELD) {
    patchJob(id, { state: "held" });
    return;
  }
  await generate(id);
  const next = state.jobs.filter((job) => job.state === "held").at(-1);
  if (next) await waitOrHold(next.id);
}

async function generate(id) {
  const abort = new AbortController();
  aborts.set(id, abort);
  patchJob(id, { state: "queued" });
  try {
    const { settings, input } = jobOf(id);
    const request = call("POST", "/generate", {
      body: { ...settings, ...(await partsOf(input, { named: false })) },
      headers: { "X-Request-ID": id, Accept: "application/json" },
      signal: abort.signal,
    });
    follow();
    const { image_base64: first, images_base64: all, metadata } = await (await request).json();
    const images = (all ?? [first]).map((each) => shown(blobOf(each)));
    const made = { state: "succeeded", preview: null, images, metadata, count: images.length };
    // There is no other copy: what is shown as finished survives a reload.
    await keep({ ...jobOf(id), ...made });
    patchJob(id, made);
    change({ said: "The image is finished." });
  } catch (error) {
    if (abort.signal.aborted) patchJob(id, { state: "cancelled" });
    else refusedOrFailed(id, error);
  } finally {
    aborts.delete(id);
  }
}

// Show a request as code, with the files that it sends.
export async function codeOf(settings, input) {
  change({ code: { ...settings, ...(await partsOf(input)) } });
}

// Faults of fields are shown at the fields; everything else at the job.
function refusedOrFailed(id, error) {
  if (error.status === 400 && Object.keys(error.errors).length) {
    change({ jobs: state.jobs.filter((job) => job.id !== id), faults: error.errors });
    change({ notice: error });
  } else {
    patchJob(id, { state: "failed", error, preview: null });
    change({ said: error.detail });
  }
}

export async function cancel(id) {
  const job = jobOf(id);
  if (job?.state === "held") {
    patchJob(id, { state: "cancelled" });
  } else if (aborts.has(id)) {
    aborts.get(id).abort();
  } else if (job && !isOver(job)) {
    await asked(async () => followed(await (await call("DELETE", `/jobs/${id}`)).json()));
    tellOthers();
  }
}

// The job ends after the step that it is in, with the image as it is then.
export const finishNow = (id) => asked(() => call("POST", `/jobs/${id}/interrupt`));

async function asked(send) {
  try {
    await send();
  } catch (error) {
    if (error instanceof ApiError) change({ notice: error });
    else throw error;
  }
}

export async function remove(id) {
  const { input } = jobOf(id) ?? {};
  hide(id);
  forgetInput(input);
  await drop(id);
}
