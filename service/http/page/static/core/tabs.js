// Other windows of this page in the same browser learn of a change at once.

const channel = typeof BroadcastChannel === "function" ? new BroadcastChannel("sd-api") : null;

export const tellOthers = () => channel?.postMessage("changed");
export const onOthers = (listener) => channel?.addEventListener("message", listener);
