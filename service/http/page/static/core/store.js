// What the page shows, in one place; views draw again when it changes.

import { useEffect, useReducer } from "../preact.js";
import { local, readJson } from "./storage.js";

const FORM = "sd-api.form";
const HIDDEN = "sd-api.hidden";
const MOST_HIDDEN = 1000;

// An empty string stands for the default of the model. A name with a point is a field of a field.
export const EMPTY = Object.freeze({
  prompt: "",
  negative_prompt: "",
  model: "",
  width: "",
  height: "",
  steps: "",
  guidance_scale: "",
  sampler: "",
  schedule: "",
  seed: "",
  num_images: "",
  adapters: [],
  prompt_syntax: "a1111",
  long_prompts: "",
  clip_skip: "",
  guidance_rescale: "",
  eta: "",
  strength: "",
  resize: "",
  mask_blur: "",
  mask_padding: "",
  mask_fill: "",
  mask_invert: "",
  "pad.left": "",
  "pad.top": "",
  "pad.right": "",
  "pad.bottom": "",
  "hires.scale": "",
  "hires.steps": "",
  "hires.strength": "",
  "hires.resize": "",
  subseed: "",
  subseed_strength: "",
});

// What belongs to one key.
export const NOTHING = Object.freeze({
  models: [],
  adapters: [],
  jobs: [],
  cursor: null,
  selected: "",
  started: false,
});

export const state = {
  form: { ...EMPTY, ...readJson(local, FORM, {}) },
  faults: {},
  notice: null,
  ...NOTHING,
  health: null,
  durable: true,
  unreachable: false,
  keyWanted: null,
  keyed: false,
  code: null,
  input: null,
  painting: false,
  viewing: false,
  said: "",
};

const listeners = new Set();

export function change(patch) {
  Object.assign(state, patch);
  listeners.forEach((listener) => listener());
}

export function useStore() {
  const [, again] = useReducer((count) => count + 1, 0);
  useEffect(() => {
    listeners.add(again);
    return () => listeners.delete(again);
  }, []);
  return state;
}

export function fill(values) {
  const form = { ...state.form, ...values };
  const faults = { ...state.faults };
  Object.keys(values).forEach((name) => delete faults[name.split(".")[0]]);
  local.set(FORM, JSON.stringify(form));
  change({ form, faults });
}

// Each job is replaced, never changed, and the newest stands first.
export function putJob(job) {
  const others = state.jobs.filter((each) => each.id !== job.id);
  const jobs = [...others, job].sort((a, b) => b.created - a.created);
  change({ jobs });
}

export function patchJob(id, patch) {
  const known = state.jobs.find((each) => each.id === id);
  if (known) change({ jobs: state.jobs.map((job) => (job === known ? { ...job, ...patch } : job)) });
}

export const jobOf = (id) => state.jobs.find((job) => job.id === id);

// The service keeps its own copy of a job that was removed here.
const hidden = new Set(readJson(local, HIDDEN, []));
export const isHidden = (id) => hidden.has(id);
export function hide(id) {
  hidden.add(id);
  local.set(HIDDEN, JSON.stringify([...hidden].slice(-MOST_HIDDEN)));
  change({ jobs: state.jobs.filter((job) => job.id !== id) });
}

export const modelOf = (form) =>
  state.models.find((model) => model.id === form.model) ??
  state.models.find((model) => model.default);

export const isOver = (job) => !["sending", "held", "queued", "running"].includes(job.state);

// What the gallery shows: one entry an image, and one a job without images.
export function entries(jobs) {
  return jobs.flatMap((job) =>
    job.state === "succeeded"
      ? Array.from({ length: job.count }, (_, index) => ({ key: `${job.id}/${index}`, job, index }))
      : [{ key: job.id, job, index: 0 }],
  );
}

// A job that was selected while it ran is shown by its first image when it is over.
export function selection(all) {
  const { selected } = state;
  const found =
    all.find(({ key }) => key === selected) ??
    all.find(({ job }) => selected && selected.split("/")[0] === job.id);
  return found ?? all[0] ?? null;
}
