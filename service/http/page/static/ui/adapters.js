// LoRA files with their weights and trigger words, and embeddings.

import { html } from "../preact.js";
import { fill, state, useStore } from "../core/store.js";
import { Faults, told } from "./fields.js";
import { Action } from "./icons.js";

const SLIDER = { min: -2, max: 2, step: 0.05 };

export function Adapters({ model }) {
  const { adapters, form, faults } = useStore();
  const loras = adapters.filter(({ kind }) => kind === "lora");
  const embeddings = adapters.filter(({ kind, problem }) => kind === "embedding" && !problem);
  if (!adapters.length && !form.adapters.length) return null;
  const chosen = new Set(form.adapters.map(({ name }) => name));
  const free = loras.filter(({ name }) => !chosen.has(name));
  return html`
    <fieldset class="field adapters">
      <legend>LoRA</legend>
      ${form.adapters.map((each) => html`
        <${Chosen} key=${each.name} each=${each} about=${loras.find(({ name }) => name === each.name)} />`)}
      ${free.length > 0 && html`
        <select id="field-adapters" aria-label="Add a LoRA" ...${told(faults, "adapters")}
          onChange=${add}>
          <option value="" selected>Add a LoRA …</option>
          ${free.map((each) => html`
            <option key=${each.name} value=${each.name} disabled=${Boolean(each.problem)}>
              ${each.name}${suffix(each, model)}
            </option>`)}
        </select>`}
      <${Faults} name="adapters" />
      ${embeddings.length > 0 && html`
        <div class="words">
          <span class="hint">Embeddings</span>
          ${embeddings.map(({ name }) => html`<${Word} key=${name} word=${name} />`)}
        </div>`}
    </fieldset>
  `;
}

function add(event) {
  const name = event.target.value;
  event.target.value = "";
  if (name) fill({ adapters: [...state.form.adapters, { name, weight: 1 }] });
}

function suffix(adapter, model) {
  if (adapter.problem) return " (cannot be used)";
  const other = adapter.family && (adapter.family === "sdxl") !== (model.family === "sdxl");
  return other ? ` (made for ${adapter.family})` : "";
}

const setWeight = (name, weight) =>
  fill({
    adapters: state.form.adapters.map((each) => (each.name === name ? { name, weight } : each)),
  });

const dropIt = (name) =>
  fill({ adapters: state.form.adapters.filter((each) => each.name !== name) });

const Chosen = ({ each: { name, weight }, about }) => html`
  <div class="adapter">
    <div class="slider">
      <strong>${name}</strong>
      <input type="range" ...${SLIDER} value=${weight} aria-label=${`Weight of ${name}, slider`}
        onInput=${(event) => setWeight(name, event.target.value)} />
      <input type="number" step="0.05" value=${weight} aria-label=${`Weight of ${name}`}
        onInput=${(event) => setWeight(name, event.target.value)} />
      <${Action} icon="close" label=${`Remove ${name}`} short onClick=${() => dropIt(name)} />
    </div>
    ${about?.trigger_words.length > 0 && html`
      <div class="words">
        <span class="hint">Trigger words</span>
        ${about.trigger_words.slice(0, 12).map((word) => html`<${Word} key=${word} word=${word} />`)}
      </div>`}
  </div>
`;

// A word that goes to the end of the prompt, and out of it again.
function Word({ word }) {
  const { form } = useStore();
  const parts = form.prompt.split(",").map((part) => part.trim());
  const there = parts.includes(word);
  const toggle = () =>
    fill({
      prompt: there
        ? parts.filter((part) => part !== word).join(", ")
        : [form.prompt.trim().replace(/,$/, ""), word].filter(Boolean).join(", "),
    });
  return html`
    <button type="button" class="chip" aria-pressed=${String(there)} onClick=${toggle}>${word}</button>
  `;
}
