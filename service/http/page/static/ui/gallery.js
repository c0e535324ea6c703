// Everything made here and everything in work, the newest first.

import { html, useEffect, useRef, useState } from "../preact.js";
import { list } from "../core/follow.js";
import { wantImages } from "../core/images.js";
import { modeOf } from "../core/settings.js";
import { change, entries, selection, useStore } from "../core/store.js";
import { progressOf } from "../core/words.js";

const SHOWN = 24;

export function Gallery() {
  const { jobs, cursor } = useStore();
  const [most, setMost] = useState(SHOWN);
  const all = entries(jobs);
  const chosen = selection(all);
  if (!all.length) return null;
  const more = async () => {
    if (all.length <= most + SHOWN && cursor) await list(cursor);
    setMost(most + SHOWN);
  };
  return html`
    <section class="gallery" aria-labelledby="gallery-title">
      <h2 id="gallery-title">Gallery</h2>
      <ul onKeyDown=${arrows}>
        ${all.slice(0, most).map((each) => html`
          <${Tile} key=${each.key} entry=${each} current=${each.key === chosen?.key} />`)}
      </ul>
      ${(all.length > most || cursor) && html`
        <button type="button" class="action more-images" onClick=${more}>Show more</button>`}
    </section>
  `;
}

// Arrows move through the tiles as they lie.
function arrows(event) {
  const steps = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: 0, ArrowUp: 0 };
  if (!(event.key in steps)) return;
  const tiles = [...event.currentTarget.querySelectorAll("button")];
  const at = tiles.indexOf(document.activeElement);
  const top = tiles[0].getBoundingClientRect().top;
  const columns = tiles.filter((tile) => tile.getBoundingClientRect().top === top).length;
  const step = steps[event.key] || (event.key === "ArrowDown" ? columns : -columns);
  const next = tiles[at + step];
  if (at < 0 || !next) return;
  event.preventDefault();
  next.focus();
  next.click();
}

function Tile({ entry: { key, job, index }, current }) {
  const element = useRef(null);
  useEffect(() => {
    wantImages(job.id);
  }, [job.id, job.state]);
  const image = job.images[index];
  const words = wordsOf(job);
  const mode = modeOf(job.settings);
  return html`
    <li>
      <button type="button" ref=${element} class=${`tile ${job.state}`} aria-current=${current ? "true" : null}
        aria-label=${[job.settings.prompt, words, mode].filter(Boolean).join(". ")}
        onClick=${() => choose(key)}>
        ${image && html`<img src=${image.url} alt="" decoding="async" />`}
        ${!image && job.preview && html`<img class="preview" src=${job.preview} alt="" />`}
        ${mode && html`<span class="badge mode">${mode}</span>`}
        ${words && html`<span class="badge">${words}</span>`}
        ${job.state === "running" && html`<progress max=${job.steps} value=${job.step} aria-hidden="true"></progress>`}
      </button>
    </li>
  `;
}

const wordsOf = (job) => {
  if (job.state === "succeeded") return job.gone ? "Expired" : "";
  if (job.state === "failed") return "Failed";
  if (job.state === "cancelled") return "Cancelled";
  return progressOf(job).split(" · ")[0];
};

function choose(key) {
  change({ selected: key });
  document.querySelector(".stage")?.scrollIntoView({ block: "nearest" });
}
