// The form: all that decides an image.

import { html, useEffect, useRef, useState } from "../preact.js";
import { hasMask, removeInput } from "../core/input.js";
import { codeOf, submit } from "../core/jobs.js";
import { requestOf, shapesOf, sizeOf } from "../core/settings.js";
import { change, EMPTY, fill, modelOf, state, useStore } from "../core/store.js";
import { adviceFor } from "../core/words.js";
import { Adapters } from "./adapters.js";
import { Hires, Variations } from "./extras.js";
import { Chips, Choice, faultsOf, Field, Faults, hasField, NumberField, Slider, TextArea, told } from "./fields.js";
import { readFile } from "./files.js";
import { Action, Icon } from "./icons.js";
import { InputImage } from "./panel.js";

const MOST_CHIPS = 8;
const WIDE = matchMedia("(min-width: 60rem)");

export function Form() {
  const { form, faults, notice, models } = useStore();
  const element = useRef(null);
  const ready = models.length > 0;
  useEffect(() => {
    element.current.querySelector("[aria-invalid=true]")?.focus();
  }, [faults]);
  const send = (event) => {
    event.preventDefault();
    if (ready) generate();
  };
  const keys = (event) => {
    if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event);
  };
  return html`
    <form class="form" ref=${element} onSubmit=${send} onKeyDown=${keys} noValidate>
      <h2 class="quiet">Describe the image</h2>
      <${TextArea} name="prompt" label="Prompt" rows="4" required
        placeholder="A cozy cabin in the woods, morning light" />
      <${TextArea} name="negative_prompt" label="Negative prompt" hint="what to keep out" rows="1" />
      <button type="submit" class="primary" disabled=${!ready} aria-keyshortcuts="Control+Enter">
        Generate <kbd>Ctrl ↵</kbd>
      </button>
      ${notice && html`<${Notice} notice=${notice} />`}
      ${ready ? html`<${InputImage} /><${Settings} />` : null}
    </form>
  `;
}

function generate() {
  if (!state.form.prompt.trim()) {
    change({ faults: { prompt: ["Say what the image shows."] }, notice: null });
    return;
  }
  submit(...asked());
}

// What the form asks for, and the image to start from.
const asked = () => {
  const { form, input } = state;
  return [requestOf(form, { image: Boolean(input), mask: hasMask(input) }), input];
};

// An error of the whole request, or a word on what was read from a file.
function Notice({ notice }) {
  const elsewhere = Object.keys(notice.errors ?? {}).filter((name) => !hasField(name));
  const known = notice.code === "validation_error" && !elsewhere.length;
  return html`
    <div class=${`notice ${notice.code ? "bad" : ""}`} role=${notice.code ? "alert" : "status"}>
      <p>${known ? adviceFor(notice) : notice.detail}</p>
      ${notice.code && !known && html`<p>${adviceFor(notice)}</p>`}
      <${Action} icon="close" label="Close this message" short onClick=${() => change({ notice: null })} />
    </div>
  `;
}

function Settings() {
  const { form, models, faults } = useStore();
  const model = modelOf(form);
  const [open, setOpen] = useState(WIDE.matches);
  const file = useRef(null);
  return html`
    <details class="settings" open=${open} onToggle=${(event) => setOpen(event.target.open)}>
      <summary><h2>Settings</h2></summary>
      <div class="inside">
      <${Choice} name="model" label="Model" choices=${modelChoices(models)} />
      ${model.problem && html`<p class="fault">This model cannot be used: ${model.problem}</p>`}
      <${Size} model=${model} />
      <${Count} model=${model} />
      <${Slider} name="steps" label="Steps" />
      <${Slider} name="guidance_scale" label="Guidance" step="0.5" />
      <${NumberField} name="seed" label="Seed" placeholder="random" hint="the same seed, the same image">
        <${Action} icon="dice" label="Use a random seed" short disabled=${form.seed === ""}
          onClick=${() => fill({ seed: "" })} />
      <//>
      <div class="pair">
        <${Choice} name="sampler" label="Sampler" choices=${samplerChoices(model)}
          also=${() => ({ schedule: "" })} />
        <${Choice} name="schedule" label="Schedule" choices=${scheduleChoices(model, form)} />
      </div>
      <${Adapters} model=${model} />
      <${Hires} /><${Variations} />
      <${More} model=${model} form=${form} faults=${faults} />
      <div class="links">
        <${Action} icon="file" label="Read an image's settings" onClick=${() => file.current.click()} />
        <input type="file" class="quiet" ref=${file} accept="image/png,image/webp,image/jpeg"
          tabindex="-1" aria-label="Image to read the settings from"
          onChange=${(event) => readFile(event.target.files[0])} />
        <${Action} icon="code" label="As code" onClick=${() => codeOf(...asked())} />
        <${Action} icon="close" label="Reset" onClick=${reset} />
      </div>
      </div>
    </details>
  `;
}

const reset = () => {
  fill({ ...EMPTY, prompt: state.form.prompt });
  removeInput();
  change({ faults: {}, notice: null });
};

function modelChoices(models) {
  const states = { on_disk: "loads first", on_hub: "is downloaded first", failed: "cannot be used" };
  return models.map((model) => [
    model.default ? "" : model.id,
    named(model.id, [model.inpainting && "for inpainting", states[model.state]]),
  ]);
}

const named = (id, facts) => (facts.some(Boolean) ? `${id} (${facts.filter(Boolean).join(", ")})` : id);

function samplerChoices(model) {
  const usual = model.samplers.find(({ name }) => name === model.defaults.sampler);
  const all = model.samplers.map(({ name, label }) => [name, label]);
  return [["", `${usual?.label ?? model.defaults.sampler} (default)`], ...all];
}

function scheduleChoices(model, form) {
  const chosen = form.sampler || model.defaults.sampler;
  const sampler = model.samplers.find(({ name }) => name === chosen);
  const all = (sampler?.schedules ?? []).map((name) => [name, worded(name)]);
  return [["", `${worded(model.defaults.schedule)} (default)`], ...all];
}

const worded = (name) =>
  `${name[0].toUpperCase()}${name.slice(1).replaceAll("_", " ")}`.replace("Sgm", "SGM");

// The shape of the image that is started from.
const OWN = "Original";

function Size({ model }) {
  const { form, faults } = useStore();
  const { input } = state;
  const { width, height } = sizeOf(form, model);
  const shapes = shapesOf(model);
  const own = input && form.width === "" && form.height === "";
  const chosen = own ? { name: OWN } : shapes.find((each) => each.width === width && each.height === height);
  const names = [...(input ? [OWN] : []), ...shapes.map(({ name }) => name)];
  return html`
    <fieldset class="field">
      <legend>Size</legend>
      <${Chips} label="Shape" chosen=${chosen?.name} choices=${names.map((name) => ({
        value: name,
        text: html`<span class=${`shape ${name.toLowerCase()}`}></span>${name}`,
      }))} onChoose=${(name) => {
        const { width: wide, height: high } = shapes.find((shape) => shape.name === name) ?? EMPTY;
        fill({ width: wide, height: high });
      }} />
      <div class="size">
        ${["width", "height"].map((name) => html`
          <input type="number" key=${name} id=${`field-${name}`} aria-label=${worded(name)}
            min=${model.limits[name].minimum} max=${model.limits[name].maximum}
            step=${model.limits[name].multiple_of} value=${form[name]} inputmode="numeric"
            placeholder=${input ? "auto" : model.defaults[name]} ...${told(faults, name)}
            onInput=${(event) => fill({ [name]: event.target.value })} />`)}
        <span class="hint">pixels, ${model.limits.width.minimum} to ${model.limits.width.maximum}</span>
      </div>
      <${Faults} name="width" /><${Faults} name="height" />
    </fieldset>
  `;
}

function Count({ model }) {
  const { form } = useStore();
  const most = model.limits.num_images.maximum;
  if (most > MOST_CHIPS) return html`<${NumberField} name="num_images" label="Images" />`;
  if (most === 1) return null;
  const choices = Array.from({ length: most }, (_, index) => index + 1);
  return html`
    <fieldset class="field">
      <legend>Images</legend>
      <${Chips} label="Number of images" chosen=${Number(form.num_images || model.defaults.num_images)}
        choices=${choices.map((count) => ({ value: count, text: String(count) }))}
        onChoose=${(count) => fill({ num_images: count })} />
      <${Faults} name="num_images" />
    </fieldset>
  `;
}

const RARE = {
  clip_skip: { label: "CLIP skip" },
  guidance_rescale: { label: "Guidance rescale", step: "any" },
  eta: { label: "Eta", step: "any" },
};
const SYNTAXES = [["a1111", "Brackets and <lora:…> as in AUTOMATIC1111"], ["plain", "Plain text"]];
const LONG = [["", "Default"], ["cut", "Cut their end"], ["chunks", "Read them in chunks"]];

function More({ model, form, faults }) {
  const rare = Object.keys(RARE).filter((name) => model.limits[name]);
  const names = [...rare, "long_prompts"];
  const used = names.some((name) => form[name] !== "" || faultsOf(faults, name).length);
  return html`
    <details class="more" open=${used}>
      <summary>More</summary>
      <div class="inside">
      <${Choice} name="prompt_syntax" label="Prompt syntax" choices=${SYNTAXES} />
      <${Choice} name="long_prompts" label="Long prompts" choices=${LONG} />
      ${rare.map((name) => html`<${NumberField} key=${name} name=${name} ...${RARE[name]} />`)}
      </div>
    </details>
  `;
}
