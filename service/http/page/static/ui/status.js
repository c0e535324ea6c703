// The state of the service: one line, and a panel that stays current while it is open.

import { html, useEffect, useState } from "../preact.js";
import { getJson } from "../core/api.js";
import { refresh } from "../core/follow.js";
import { change, isOver, state, useStore } from "../core/store.js";
import { plural, seconds } from "../core/words.js";

const BUSY_MS = 1500;
const IDLE_MS = 5000;

const STATUS = {
  healthy: "Ready",
  loading: "Loading the model",
  restarting: "Restarting the engine",
  degraded: "Not working",
  shutting_down: "Shutting down",
};

async function look() {
  try {
    const health = await getJson("/health");
    const back = state.unreachable;
    change({ health, unreachable: false });
    if (back) await refresh();
  } catch (error) {
    if (error.code === "unreachable") change({ unreachable: true });
  }
}

export function Status() {
  const { health, jobs, unreachable } = useStore();
  const [open, setOpen] = useState(false);
  const busy = open || !jobs.every(isOver);
  useEffect(() => {
    const again = () => document.visibilityState === "visible" && look();
    again();
    const timer = setInterval(again, busy ? BUSY_MS : IDLE_MS);
    return () => clearInterval(timer);
  }, [busy]);
  const kind = unreachable ? "bad" : { healthy: "good", degraded: "bad" }[health?.status] ?? "busy";
  return html`
    <div class="status">
      <button type="button" class="pill" aria-expanded=${String(open)} aria-controls="panel"
        onClick=${() => setOpen(!open)}>
        <span class=${`dot ${kind}`} aria-hidden="true"></span>
        ${unreachable ? "No answer" : wordsOf(health)}
      </button>
      ${open && html`<${Panel} health=${health} />`}
    </div>
  `;
}

function wordsOf(health) {
  if (!health) return "Connecting";
  const { depth } = health.queue;
  const parts = [STATUS[health.status], health.running && `${health.running} running`];
  return [...parts, depth && `${depth} waiting`].filter(Boolean).join(" · ");
}

function Panel({ health }) {
  if (!health) return html`<div class="panel" id="panel"><p>The service has not answered yet.</p></div>`;
  const { queue, engine, model } = health;
  const [used, total] = [health.gpu_memory_used, health.gpu_memory_total].map(parseFloat);
  return html`
    <div class="panel" id="panel">
      <h2>The service now</h2>
      <dl>
        <${Fact} name="Queue" share=${[queue.depth, queue.limit]}>${queue.depth} of ${queue.limit} places taken<//>
        <${Fact} name="In work">${plural(health.running, "request")}<//>
        <${Fact} name="Engine">${engine.state}${engine.restarts ? `, restarted ${engine.restarts} times` : ""}${engine.circuit === "closed" ? "" : `, circuit ${engine.circuit}`}<//>
        ${total > 0
          ? html`<${Fact} name="GPU memory" share=${[used, total]}>${health.gpu_memory_used} of ${health.gpu_memory_total}<//>`
          : html`<${Fact} name="GPU memory">no GPU<//>`}
        ${model && html`<${Fact} name="Model">${model.id} (${model.version})<//>`}
        ${model && html`<${Fact} name="Device">${model.device}, ${model.dtype}<//>`}
        <${Fact} name="Up for">${seconds(health.uptime_seconds)}<//>
        <${Fact} name="Version">${health.version}<//>
      </dl>
      ${engine.failure && html`<p class="fault">${engine.failure}</p>`}
    </div>
  `;
}

const Fact = ({ name, share, children }) => html`
  <div>
    <dt>${name}</dt>
    <dd>${children}${share && html`
      <meter min="0" max=${share[1]} value=${share[0]} aria-label=${name}></meter>`}</dd>
  </div>
`;
