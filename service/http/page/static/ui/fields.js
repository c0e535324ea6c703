// Fields of the form: a label, the control, and what is wrong with it.

import { html } from "../preact.js";
import { EMPTY, fill, modelOf, useStore } from "../core/store.js";

// Fields that are no part of what the form keeps.
const OTHERS = ["image", "mask"];

export function faultsOf(faults, name) {
  const [outer, inner] = name.split(".");
  if (inner) return ofPart(faults[outer], inner);
  return Object.entries(faults)
    .filter(([key]) => key === name || key.startsWith(`${name}.`))
    .flatMap(([key, found]) => flat(found).map((text) => ({ key, text })));
}

// What is wrong with a field of a field begins with its name.
const ofPart = (found, inner) =>
  flat(found ?? [])
    .filter((text) => text.startsWith(`${inner}: `))
    .map((text) => ({ text: text.slice(inner.length + 2) }));

// What is wrong with a field but with none of its fields.
export const faultsOfWhole = (faults, names) =>
  faultsOf(faults, names[0].split(".")[0]).filter(
    ({ text }) => !names.some((name) => text.startsWith(`${name.split(".")[1]}: `)),
  );

// Faults of a list are nested by place and field.
// Whether a fault is shown at a field of the form.
export const hasField = (name) =>
  name in EMPTY || OTHERS.includes(name) || Object.keys(EMPTY).some((each) => each.startsWith(`${name}.`));

const flat = (found) =>
  typeof found === "string" ? [found] : Object.values(found).flatMap((each) => flat(each));

export function Faults({ name }) {
  const found = faultsOf(useStore().faults, name);
  if (!found.length) return null;
  return html`<p class="fault" id=${`fault-${name}`}>${found.map(({ text }) => text).join("; ")}</p>`;
}

// What a control says to assistive technology of its faults.
export function told(faults, name) {
  const wrong = faultsOf(faults, name).length > 0;
  return { "aria-invalid": wrong || null, "aria-describedby": wrong ? `fault-${name}` : null };
}

export const Field = ({ name, label, children, hint }) => html`
  <div class="field">
    <label for=${`field-${name}`}>${label}${hint && html` <span class="hint">${hint}</span>`}</label>
    ${children}
    <${Faults} name=${name} />
  </div>
`;

export function TextArea({ name, label, hint, rows, ...rest }) {
  const { form, faults } = useStore();
  return html`
    <${Field} name=${name} label=${label} hint=${hint}>
      <textarea id=${`field-${name}`} name=${name} rows=${rows} value=${form[name]}
        onInput=${(event) => fill({ [name]: event.target.value })}
        ...${told(faults, name)} ...${rest}></textarea>
    <//>
  `;
}

// A number with a slider; empty, it is the default of the model.
export function Slider({ name, label, step, limits, usual }) {
  const { form, faults } = useStore();
  const model = modelOf(form);
  const { minimum, maximum, multiple_of: multiple } = limits ?? model.limits[name];
  const normal = usual ?? model.defaults[name];
  const value = form[name] === "" ? normal : form[name];
  const set = (event) => fill({ [name]: event.target.value });
  const range = { min: minimum, max: maximum, step: step ?? multiple ?? 1 };
  return html`
    <${Field} name=${name} label=${label}>
      <div class="slider">
        <input type="range" ...${range} value=${value} aria-label=${`${label}, slider`} onInput=${set} />
        <input type="number" id=${`field-${name}`} ...${range} step=${step ? "any" : range.step}
          value=${form[name]} placeholder=${normal} inputmode="decimal"
          onInput=${set} ...${told(faults, name)} />
      </div>
    <//>
  `;
}

export function NumberField({ name, label, hint, placeholder, children, step, limits }) {
  const { form, faults } = useStore();
  const model = modelOf(form);
  const { minimum, maximum, multiple_of: multiple } = limits ?? model.limits[name];
  return html`
    <${Field} name=${name} label=${label} hint=${hint}>
      <div class="joined">
        <input type="number" id=${`field-${name}`} min=${minimum} max=${maximum}
          step=${step ?? multiple ?? 1} value=${form[name]} inputmode="numeric"
          placeholder=${placeholder ?? model.defaults[name]}
          onInput=${(event) => fill({ [name]: event.target.value })} ...${told(faults, name)} />
        ${children}
      </div>
    <//>
  `;
}

// Choices are pairs of a value and what is shown for it.
export function Choice({ name, label, choices, also }) {
  const { form, faults } = useStore();
  const known = choices.some(([value]) => value === String(form[name]));
  const all = known ? choices : [...choices, [form[name], form[name]]];
  return html`
    <${Field} name=${name} label=${label}>
      <select id=${`field-${name}`} value=${form[name]} ...${told(faults, name)}
        onChange=${(event) => fill({ ...also?.(event.target.value), [name]: event.target.value })}>
        ${all.map(([value, text]) => html`
          <option key=${value} value=${value} selected=${value === String(form[name])}>${text}</option>`)}
      </select>
    <//>
  `;
}

// A few choices next to each other.
export const Chips = ({ label, choices, chosen, onChoose }) => html`
  <div class="chips" role="group" aria-label=${label}>
    ${choices.map(({ value, text, about }) => html`
      <button type="button" key=${value} class="chip" aria-pressed=${String(value === chosen)}
        aria-label=${about ?? null} onClick=${() => onChoose(value)}>${text}</button>`)}
  </div>
`;
