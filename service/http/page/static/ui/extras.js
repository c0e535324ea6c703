// Folded parts of the form: a second, larger pass, and variations of a seed.

import { html } from "../preact.js";
import { fill, modelOf, useStore } from "../core/store.js";
import { secondSize, sizeOf } from "../core/settings.js";
import { Choice, faultsOf, faultsOfWhole, NumberField, Slider } from "./fields.js";
import { Action } from "./icons.js";

// Folded until it says something.
export const Fold = ({ title, names, children }) => {
  const { form, faults } = useStore();
  const wrong = names[0].includes(".") ? faultsOfWhole(faults, names) : [];
  const used = wrong.length > 0 || names.some((name) => form[name] !== "" || faultsOf(faults, name).length);
  return html`
    <details class="more" open=${used}>
      <summary>${title}</summary>
      <div class="inside">
        ${wrong.map(({ text }) => html`<p class="fault" key=${text}>${text}</p>`)}
        ${children}
      </div>
    </details>
  `;
};

const SHARE = { minimum: 0, maximum: 1 };
const SCALE = { minimum: 1, maximum: 4 };
const SECOND = ["hires.scale", "hires.steps", "hires.strength", "hires.resize"];
const RESIZES = [["", "Latents (default)"], ["lanczos", "The image, Lanczos"]];

export function Hires() {
  const { form, input } = useStore();
  if (input) return null;
  const model = modelOf(form);
  const scale = Number(form["hires.scale"]);
  const size = secondSize({ ...sizeOf(form, model), hires: { scale } });
  const said = scale > 1 ? `${size.join(" × ")} pixels` : "1: one pass";
  return html`
    <${Fold} title="Hires: a second, larger pass" names=${SECOND}>
      <${Slider} name="hires.scale" label=${`Scale · ${said}`} step="0.05" usual=${1} limits=${SCALE} />
      <${Slider} name="hires.strength" label="Hires strength" step="0.05" usual=${0.7} limits=${SHARE} />
      <div class="pair">
        <${NumberField} name="hires.steps" label="Hires steps" placeholder=${form.steps || model.defaults.steps}
          limits=${model.limits.steps} />
        <${Choice} name="hires.resize" label="Enlarge" choices=${RESIZES} />
      </div>
    <//>
  `;
}

export function Variations() {
  const { form } = useStore();
  if (!modelOf(form).limits.subseed_strength) return null;
  return html`
    <${Fold} title="Variations of the seed" names=${["subseed", "subseed_strength"]}>
      <${Slider} name="subseed_strength" label="Variation strength" step="0.05" />
      <${NumberField} name="subseed" label="Variation seed" placeholder="random">
        <${Action} icon="dice" label="Use a random variation seed" short disabled=${form.subseed === ""}
          onClick=${() => fill({ subseed: "" })} />
      <//>
    <//>
  `;
}
