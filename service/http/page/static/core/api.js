// Requests to the service: addresses below any prefix, the key, and errors as values.

import { local, session } from "./storage.js";

// This file is page/VERSION/core/api.js below the page.
export const BASE = new URL("../../../", import.meta.url);

const KEY = "sd-api.key";
const listeners = new Set();

let key = session.get(KEY) ?? local.get(KEY) ?? "";

export const hasKey = () => key !== "";
export const hadKey = () => hasKey() || [session, local].some((kept) => kept.get(KEY) !== null);
export const keyIsKept = () => local.get(KEY) !== null;
export const onKeyNeeded = (listener) => listeners.add(listener);

export function setKey(value, keep) {
  forgetKey();
  key = value;
  (keep ? local : session).set(KEY, value);
}

export function forgetKey() {
  key = "";
  local.remove(KEY);
  session.remove(KEY);
}

export class ApiError extends Error {
  constructor({ status = 0, code, detail, errors = {}, retryAfter = null, requestId = "" }) {
    super(detail);
    Object.assign(this, { status, code, detail, errors, retryAfter, requestId });
  }
}

export const address = (path) => new URL(path.replace(/^\//, ""), BASE);

export async function call(method, path, { body, headers = {}, signal } = {}) {
  const sent = { "X-Client": "page", ...headers };
  if (key) sent.Authorization = `Bearer ${key}`;
  const form = body && formOf(body);
  // The browser says which boundary it puts between the parts of a form.
  if (body !== undefined && !form) sent["Content-Type"] = "application/json";
  let answer;
  try {
    answer = await fetch(address(path), {
      method,
      headers: sent,
      body: form ?? (body === undefined ? undefined : JSON.stringify(body)),
      signal,
      cache: "no-store",
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError({ code: "unreachable", detail: "The service does not answer." });
  }
  if (answer.ok) return answer;
  const error = await refused(answer);
  if (error.status === 401) {
    // Sent again and again it would count as guessing.
    if (sent.Authorization === `Bearer ${key}`) key = "";
    listeners.forEach((listener) => listener(error, "Authorization" in sent));
  }
  throw error;
}

// Images go as they are, in a form; null for a request without any.
function formOf(body) {
  const entries = Object.entries(body);
  if (!entries.some(([, value]) => value instanceof Blob)) return null;
  const form = new FormData();
  for (const [name, value] of entries) {
    if (value instanceof Blob) form.append(name, value, name);
    else form.append(name, typeof value === "object" ? JSON.stringify(value) : value);
  }
  return form;
}

export const getJson = async (path) => (await call("GET", path)).json();

async function refused(answer) {
  const facts = {
    status: answer.status,
    retryAfter: Number(answer.headers.get("Retry-After")) || null,
    requestId: answer.headers.get("X-Request-ID") ?? "",
  };
  try {
    const { code, detail, errors } = await answer.json();
    if (code) return new ApiError({ ...facts, code, detail, errors });
  } catch {
    // A proxy answers with a page of its own.
  }
  const detail = `Something between this page and the service answered ${answer.status}.`;
  return new ApiError({ ...facts, code: "foreign_answer", detail });
}

// Server-sent events (HTML Living Standard, 9.2). EventSource could not send the key.
export async function* eventsOf(answer) {
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (rest + value).split(/\r?\n\r?\n/);
      rest = blocks.pop();
      for (const block of blocks) {
        const event = parsed(block);
        if (event) yield event;
      }
    }
  } finally {
    await reader.cancel().catch(() => undefined);
  }
}

function parsed(block) {
  let kind = "message";
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, name, value] = /^([^:]*):? ?(.*)$/.exec(line);
    if (name === "event") kind = value;
    if (name === "data") data.push(value);
  }
  return data.length ? { kind, data: JSON.parse(data.join("\n")) } : null;
}
