// What the browser remembers; where it refuses to, everything works until the page is closed.

export const local = area(() => localStorage);
export const session = area(() => sessionStorage);

function area(open) {
  const memory = new Map();
  const attempt = (use, otherwise) => {
    try {
      return use(open());
    } catch {
      return otherwise();
    }
  };
  return {
    get: (name) => attempt((kept) => kept.getItem(name), () => memory.get(name) ?? null),
    set: (name, value) =>
      attempt((kept) => kept.setItem(name, value), () => memory.set(name, value)),
    remove: (name) => {
      memory.delete(name);
      attempt((kept) => kept.removeItem(name), () => undefined);
    },
  };
}

export function readJson(from, name, otherwise) {
  try {
    return JSON.parse(from.get(name)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

// crypto.randomUUID exists on https:// and localhost only; this service is often on a LAN.
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (each) => each.toString(16).padStart(2, "0")).join("");
}

// Other windows of this page in the same browser learn of a change at once.
const channel = typeof BroadcastChannel === "function" ? new BroadcastChannel("sd-api") : null;

export const tellOthers = () => channel?.postMessage("changed");
export const onOthers = (listener) => channel?.addEventListener("message", listener);
