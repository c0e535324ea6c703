// The selected image, large, or how far it is.

import { html, useEffect } from "../preact.js";
import { wantImages } from "../core/images.js";
import { hasMask, takeAgain, takeResult } from "../core/input.js";
import { cancel, codeOf, finishNow, remove, submit } from "../core/jobs.js";
import { formOf, modeOf, requestOf, secondSize, sizeOf } from "../core/settings.js";
import { change, entries, fill, isOver, modelOf, selection, state, useStore } from "../core/store.js";
import { adviceFor, progressOf, seconds } from "../core/words.js";
import { Action, Icon } from "./icons.js";

const EXAMPLES = [
  "A cozy cabin in the woods",
  "a lighthouse at dusk",
  "a red fox in the snow",
  "a sailing boat on a lake at night",
];

export function Stage() {
  const { jobs, form } = useStore();
  const chosen = selection(entries(jobs));
  if (!chosen) return html`<${Empty} />`;
  const { job, index } = chosen;
  const { width, height } = sizeOf(job.settings, modelOf(form), job.input);
  const View = { succeeded: Finished, failed: Failed, cancelled: Cancelled }[job.state] ?? Running;
  return html`
    <section class=${`stage ${width / height < 1.2 ? "upright" : ""}`} aria-label="Selected image">
      <${View} key=${job.id} job=${job} index=${index} frame=${frame(width, height)} />
    </section>
  `;
}

// As large as the column and the window allow.
const frame = (width, height) => ({
  aspectRatio: `${width} / ${height}`,
  maxWidth: `calc(var(--stage) * ${width / height})`,
});

const Empty = () => html`
  <section class="stage empty" aria-label="Start">
    <div class="horizon" aria-hidden="true"><span class="sun"></span><span class="hill far"></span><span class="hill near"></span></div>
    <h2>Your first image starts with a sentence</h2>
    <p>Write what you would like to see, or begin with one of these:</p>
    <div class="chips">
      ${EXAMPLES.map((each) => html`
        <button type="button" class="chip" key=${each} onClick=${() => begin(each)}>${each}</button>`)}
    </div>
  </section>
`;

function begin(prompt) {
  fill({ prompt });
  document.getElementById("field-prompt").focus();
}

function Running({ job, frame: style }) {
  const share = job.step && job.steps ? job.step / job.steps : 0;
  return html`
    <div class="frame working" style=${style}>
      ${job.preview && html`<img class="preview" src=${job.preview} alt="Preview of the unfinished image" />`}
    </div>
    <div class="about">
    <div class="progress">
      <progress max="1" value=${share} aria-label="Denoising steps done"></progress>
      <p class="far">${progressOf(job)}</p>
    </div>
    <p class="prompt">${job.settings.prompt ?? "A request of another client"}</p>
    <div class="actions">
      ${job.state === "running" && html`
        <${Action} icon="flag" label="Finish now" onClick=${() => finishNow(job.id)} />`}
      <${Action} icon="close" label="Cancel" onClick=${() => cancel(job.id)} />
    </div>
    </div>
  `;
}

function Finished({ job, index, frame: style }) {
  const image = job.images[index];
  useEffect(() => {
    wantImages(job.id);
  }, [job.id]);
  const unsafe = job.metadata?.unsafe?.[index];
  return html`
    <div class=${`frame ${image ? "" : "working"}`} style=${style}>
      ${image && html`
        <button type="button" class="plain" aria-label="Show the image alone" onClick=${() => change({ viewing: true })}>
          <img src=${image.url} alt=${job.settings.prompt ?? "Image"} />
        </button>`}
      ${job.gone && html`<p class="gone">The image has expired on the service. Its settings are still here.</p>`}
    </div>
    <div class="about">
    ${unsafe && html`<p class="fault">The safety checker blacked out this image.</p>`}
    <p class="prompt">${job.settings.prompt}</p>
    <${Facts} job=${job} index=${index} />
    <${Warnings} job=${job} />
    <div class="actions">
      <${Action} icon="fill" label="Use these settings" onClick=${() => useAgain(job, settingsAt(job, index))} />
      <${Action} icon="seed" label="Same seed" onClick=${() => fill(seedsAt(job, index))} />
      ${image && html`
        <${Action} icon="image" label="Use as input" onClick=${() => startFrom(job, index)} />
        <a class="action" href=${image.url} download=${fileName(job, index)}><${Down} /></a>`}
      <${Action} icon="code" label="As code" onClick=${() => showCode(job, index)} />
      <${Action} icon="trash" label="Remove" onClick=${() => remove(job.id)} />
    </div>
    </div>
  `;
}

const Down = () => html`<${Icon} name="down" /><span>Download</span>`;

function Warnings({ job }) {
  const { warnings = [], prompt_truncated: cut } = job.metadata ?? {};
  const all = cut ? [...warnings, "The model could not read the whole prompt."] : warnings;
  return all.map((each) => html`<p class="warned" key=${each}>${each}</p>`);
}

export function settingsAt(job, index) {
  const settings = { ...job.settings, ...job.metadata };
  const seed = job.metadata?.seeds?.[index] ?? settings.seed;
  const subseed = job.metadata?.subseeds?.[index] ?? settings.subseed;
  return { ...settings, seed, subseed };
}

function seedsAt(job, index) {
  const { seed, subseed, subseed_strength: varied } = settingsAt(job, index);
  return varied ? { seed, subseed } : { seed };
}

function showCode(job, index) {
  const form = { ...formOf(settingsAt(job, index), state.models, { seed: true }), num_images: "" };
  codeOf(requestOf(form, kindOf(job)), job.input);
}

const kindOf = ({ input }) => ({ image: Boolean(input), mask: hasMask(input) });

function useAgain(job, settings, options) {
  fill(formOf(settings, state.models, options));
  return takeAgain(job);
}

async function startFrom(job, index) {
  await takeResult(job, index);
  document.getElementById("input-image").scrollIntoView({ block: "nearest" });
  change({ said: "The next image starts from this one." });
}

export function fileName(job, index) {
  const { prompt = "image", seed = 0 } = settingsAt(job, index);
  const words = prompt.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").slice(0, 48);
  return `${words.replace(/^-|-$/g, "") || "image"}-${seed}.png`;
}

function Facts({ job, index }) {
  const all = settingsAt(job, index);
  const { samplers = [] } = state.models.find(({ id }) => id === all.model) ?? state.models[0] ?? {};
  const took = job.metadata?.generation_time_seconds;
  const facts = {
    Made: modeOf(all),
    Size: all.width && `${all.width} × ${all.height}`,
    "Second pass": all.hires && secondSize(all).join(" × "),
    Steps: all.interrupted ? `${all.steps_done} of ${all.steps}, finished early` : all.steps,
    Sampler: samplers.find(({ name }) => name === all.sampler)?.label ?? all.sampler,
    Guidance: all.guidance_scale,
    Strength: modeOf(all) && (all.image ? all.strength : all.hires?.strength),
    Variation: all.subseed_strength && `${all.subseed_strength} of ${all.subseed}`,
    LoRA: all.adapters?.map(({ name, weight }) => `${name} ${weight}`).join(", "),
    Seed: all.seed,
    Model: all.model,
    Time: took && seconds(took),
  };
  const told = Object.entries(facts).filter(([, value]) => value || value === 0);
  return html`
    <dl class="facts">
      ${told.map(([name, value]) => html`<div key=${name}><dt>${name}</dt><dd>${value}</dd></div>`)}
    </dl>
  `;
}

const Failed = ({ job, frame: style }) => html`
  <div class="frame failed" style=${style}>
    <h2>No image this time</h2>
    <p role="alert">${job.error?.detail}</p>
    <p>${adviceFor(job.error ?? {})}</p>
    ${job.error?.requestId && html`<p class="hint">Request id: ${job.error.requestId}</p>`}
  </div>
  <${Again} job=${job} />
`;

const Cancelled = ({ job, frame: style }) => html`
  <div class="frame failed" style=${style}><h2>Cancelled</h2><p>Nothing more is computed for it.</p></div>
  <${Again} job=${job} />
`;

const Again = ({ job }) => html`
  <div class="about">
  <p class="prompt">${job.settings.prompt}</p>
  <div class="actions">
    <${Action} icon="fill" label="Use these settings" onClick=${() => useAgain(job, job.settings, { seed: true })} />
    ${job.settings.prompt && html`<${Action} icon="right" label="Try again" onClick=${() => again(job)} />`}
    <${Action} icon="trash" label="Remove" onClick=${() => remove(job.id)} />
  </div>
  </div>
`;

async function again(job) {
  const form = { ...formOf(job.settings, state.models, { seed: true }), num_images: job.count };
  const sent = submit(requestOf(form, kindOf(job)), job.input);
  await remove(job.id);
  await sent;
}

export const anythingRuns = () => state.jobs.some((job) => !isOver(job));
