// How far jobs are: events of those in work, and the list of the service for all others.

import { call, eventsOf, getJson } from "./api.js";
import { shown, wantImages } from "./images.js";
import { drop, keep, keptJob, keptJobs } from "./kept.js";
import { change, isHidden, isOver, jobOf, patchJob, putJob, state } from "./store.js";

// A browser opens six connections to a service for all windows of the page together: streams
// must leave some to requests.
const MOST_STREAMS = 2;
const POLL_MS = 2000;
const PAGE = 50;
const TRIES = 20;
const TRY_MS = 300;

const streams = new Map();
const ignored = { previews: false };
let timer = null;

const visible = () => document.visibilityState === "visible";
const unfinished = () => state.jobs.filter((job) => !isOver(job) && job.state !== "sending");

// Show what this browser kept, then what the service knows.
export async function resume() {
  for (const row of await keptJobs()) {
    if (isHidden(row.id) || jobOf(row.id)) continue;
    putJob({ ...row, images: row.images.map(shown) });
  }
  await list();
  await settle();
  follow();
}

// Look at all jobs now and, while any is not over, again and again.
export function follow() {
  clearTimeout(timer);
  if (!visible()) {
    streams.forEach((abort) => abort.abort());
    return;
  }
  const open = unfinished().filter((job) => job.state !== "held").reverse();
  for (const job of open) {
    if (streams.size >= MOST_STREAMS) break;
    if (!streams.has(job.id)) stream(job.id);
  }
  if (open.length && state.durable) timer = setTimeout(refresh, POLL_MS);
}

export async function refresh() {
  await list();
  follow();
}

export async function list(cursor = null) {
  if (!state.durable) return;
  try {
    const more = cursor ? `&cursor=${encodeURIComponent(cursor)}` : "";
    const page = await getJson(`/jobs?limit=${PAGE}${more}`);
    page.jobs.forEach(followed);
    if (cursor || !state.started) change({ cursor: page.cursor });
    change({ started: true, unreachable: false });
  } catch (error) {
    if (error.code === "jobs_off") change({ durable: false, started: true });
    else if (error.code === "unreachable") change({ unreachable: true });
  }
}

// Take over what the service says of a job.
export function followed(told) {
  if (isHidden(told.id)) return;
  const known = jobOf(told.id);
  if (known && isOver(known)) return;
  // Failures of other clients, and of long ago, say nothing here.
  if (!known && ["failed", "cancelled"].includes(told.state)) return;
  const { metadata, progress } = told;
  const job = {
    images: [],
    ...known,
    id: told.id,
    state: told.state,
    created: told.created_at,
    settings: metadata ?? known?.settings ?? {},
    metadata,
    count: metadata?.num_images ?? known?.count ?? 1,
    steps: told.steps,
    step: told.steps_done,
    position: progress?.position ?? null,
    startSeconds: progress?.start_seconds ?? null,
    eta: progress?.eta_seconds ?? null,
    error: told.error,
  };
  if (isOver(job)) job.preview = null;
  putJob(job);
  if (known && isOver(job)) ended(job);
  if (!known && !isOver(job)) recall(job.id);
}

// The service says what a job was asked for when it is over; the window that sent it kept that.
async function recall(id) {
  const row = await keptJob(id);
  const job = jobOf(id);
  if (!row || !job) return;
  patchJob(id, { input: row.input });
  if (!job.metadata) patchJob(id, { settings: row.settings, count: row.count });
}

function ended(job) {
  if (job.state === "succeeded") {
    change({ said: "The image is finished." });
    wantImages(job.id);
  } else {
    change({ said: job.error?.detail ?? "The job was cancelled." });
    if (job.state === "failed") keep(job);
    else drop(job.id);
  }
}

// Jobs that were unfinished when the page was closed, and that the list no longer has.
async function settle() {
  for (const { id } of unfinished()) {
    try {
      followed(await getJson(`/jobs/${id}`));
    } catch (error) {
      if (error.status !== 404 && error.status !== 410 && error.code !== "jobs_off") continue;
      const detail = "The page was closed before the images came, and the service kept no copy.";
      patchJob(id, { state: "failed", error: { code: "lost", detail } });
      await drop(id);
    }
  }
}

async function stream(id) {
  const abort = new AbortController();
  streams.set(id, abort);
  try {
    for await (const event of eventsOf(await opened(id, abort.signal))) heard(id, event);
  } catch {
    // It broke, or there are too many; the list says how far the job is.
  } finally {
    streams.delete(id);
  }
  if (state.durable && visible()) {
    const job = jobOf(id);
    if (job && !isOver(job)) await getJson(`/jobs/${id}`).then(followed, () => undefined);
    setTimeout(follow, TRY_MS);
  }
}

// A request that was sent a moment ago may not be a job yet, which services without stored jobs
// answer in their own way; with the safety checker there are no previews.
async function opened(id, signal) {
  for (let left = TRIES; ; left -= 1) {
    if (!state.durable) await new Promise((resolve) => setTimeout(resolve, TRY_MS));
    const query = ignored.previews ? "" : "?preview=true";
    try {
      return await call("GET", `/jobs/${id}/events${query}`, { signal });
    } catch (error) {
      if (error.status === 400 && !ignored.previews) ignored.previews = true;
      else if (state.durable || !left) throw error;
    }
  }
}

function heard(id, { kind, data }) {
  const job = jobOf(id);
  if (!job || isOver(job)) return;
  if (kind === "queued") {
    patchJob(id, { state: "queued", position: data.position, startSeconds: data.start_seconds });
  } else if (kind === "started") {
    patchJob(id, { state: "running", step: 0 });
    change({ said: "The service works on the image." });
  } else if (kind === "step") {
    const { step, steps, eta_seconds: eta } = data;
    patchJob(id, { state: "running", step, steps, eta });
  } else if (kind === "preview") {
    patchJob(id, { preview: `data:${data.media_type};base64,${data.image_base64}` });
  }
}
