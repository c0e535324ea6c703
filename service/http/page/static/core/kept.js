// Jobs and images in this browser (IndexedDB): they outlive a reload, the results' age on the
// service, and a service that keeps no jobs. Nothing is kept for a key that is not kept.

import { hasKey, keyIsKept } from "./api.js";

const MOST_JOBS = 200;
const opened = open();

const allowed = () => !hasKey() || keyIsKept();

function open() {
  return new Promise((resolve) => {
    try {
      const request = indexedDB.open("sd-api", 1);
      request.onupgradeneeded = () => request.result.createObjectStore("jobs", { keyPath: "id" });
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => resolve(null);
    } catch {
      resolve(null);
    }
  });
}

async function within(mode, use) {
  const database = await opened;
  if (!database) return null;
  return new Promise((resolve) => {
    const transaction = database.transaction("jobs", mode);
    const request = use(transaction.objectStore("jobs"));
    transaction.oncomplete = () => resolve(request.result);
    transaction.onabort = transaction.onerror = () => resolve(null);
  });
}

export async function keptJobs() {
  return (allowed() && (await within("readonly", (store) => store.getAll()))) || [];
}

export const keptJob = async (id) =>
  (allowed() && (await within("readonly", (store) => store.get(id)))) || null;

export async function keep(job) {
  if (!allowed()) return;
  const { id, created, state, settings, metadata, count, images } = job;
  const error = job.error && { code: job.error.code, detail: job.error.detail };
  const row = { id, created, state, settings, metadata, count, error };
  row.images = images.map(({ blob }) => blob);
  await within("readwrite", (store) => store.put(row));
  await prune();
}

export const drop = (id) => within("readwrite", (store) => store.delete(id));
export const dropAll = () => within("readwrite", (store) => store.clear());

async function prune() {
  const count = await within("readonly", (store) => store.count());
  if (!count || count <= MOST_JOBS) return;
  const all = await keptJobs();
  all.sort((a, b) => b.created - a.created);
  for (const { id } of all.slice(MOST_JOBS)) await drop(id);
}
