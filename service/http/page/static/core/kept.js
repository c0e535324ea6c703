// Jobs and images in this browser (IndexedDB): they outlive a reload, the results' age on the
// service, and a service that keeps no jobs. Nothing is kept for a key that is not kept.

import { hasKey, keyIsKept } from "./api.js";

const MOST_JOBS = 200;
const MOST_INPUTS = 30;
const jobs = open("sd-api", "jobs");
const inputs = open("sd-api.inputs", "inputs");
const held = new Map();

const allowed = () => !hasKey() || keyIsKept();

function open(name, store) {
  return new Promise((resolve) => {
    try {
      const request = indexedDB.open(name, 1);
      request.onupgradeneeded = () => request.result.createObjectStore(store, { keyPath: "id" });
      request.onsuccess = () => resolve({ database: request.result, store });
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
}

async function within(opening, mode, use) {
  const opened = await opening;
  if (!opened) return null;
  return new Promise((resolve) => {
    const transaction = opened.database.transaction(opened.store, mode);
    const request = use(transaction.objectStore(opened.store));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => resolve(null);
  });
}

export async function keptJobs() {
  return (allowed() && (await within(jobs, "readonly", (store) => store.getAll()))) || [];
}

export const keptJob = async (id) =>
  (allowed() && (await within(jobs, "readonly", (store) => store.get(id)))) || null;

export async function keep(job) {
  if (!allowed()) return;
  const { id, created, state, settings, metadata, count, images, input } = job;
  const error = job.error && { code: job.error.code, detail: job.error.detail };
  const row = { id, created, state, settings, metadata, count, error, input };
  row.images = images.map(({ blob }) => blob);
  await within(jobs, "readwrite", (store) => store.put(row));
  await prune(jobs, MOST_JOBS);
}

// The bytes of an image that jobs start from: one copy, however many there are.
export async function keepInput(id, blob) {
  held.set(id, blob);
  if (!allowed()) return;
  await within(inputs, "readwrite", (store) => store.put({ id, created: Date.now(), blob }));
  await prune(inputs, MOST_INPUTS);
}

export async function inputBlob(id) {
  if (held.has(id)) return held.get(id);
  const row = allowed() && (await within(inputs, "readonly", (store) => store.get(id)));
  return row?.blob ?? null;
}

export async function dropInput(id) {
  held.delete(id);
  await within(inputs, "readwrite", (store) => store.delete(id));
}

export const drop = (id) => within(jobs, "readwrite", (store) => store.delete(id));

export async function dropAll() {
  held.clear();
  for (const each of [jobs, inputs]) await within(each, "readwrite", (store) => store.clear());
}

async function prune(kind, most) {
  const count = await within(kind, "readonly", (store) => store.count());
  if (!count || count <= most) return;
  const all = await within(kind, "readonly", (store) => store.getAll());
  all.sort((a, b) => b.created - a.created);
  for (const { id } of all.slice(most)) await within(kind, "readwrite", (store) => store.delete(id));
}
