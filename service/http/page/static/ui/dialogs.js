// Dialogs: the key, the request as code, and an image alone.

import { html, useEffect, useRef, useState } from "../preact.js";
import { forgetKey, hadKey, keyIsKept, setKey } from "../core/api.js";
import { removeInput } from "../core/input.js";
import { dropAll } from "../core/kept.js";
import { filesOf, LANGUAGES, snippet } from "../core/snippets.js";
import { change, entries, NOTHING, selection, state, useStore } from "../core/store.js";
import { Chips } from "./fields.js";
import { Action, Icon } from "./icons.js";
import { fileName } from "./stage.js";

export function Dialog({ label, kind, onClose, children }) {
  const element = useRef(null);
  useEffect(() => {
    element.current.showModal();
  }, []);
  const outside = (event) => event.target === element.current && element.current.close();
  return html`
    <dialog ref=${element} class=${kind} aria-label=${label} onClose=${onClose} onClick=${outside}>
      <div class="inside">${children}</div>
    </dialog>
  `;
}

// Nothing of one key is left for the next one.
function forgetAll() {
  removeInput();
  dropAll();
  change({ ...NOTHING });
}

export function KeyDialog({ onKey }) {
  const { keyWanted } = useStore();
  const field = useRef(null);
  const [keep, setKeep] = useState(keyIsKept());
  if (!keyWanted) return null;
  const close = () => change({ keyWanted: null });
  const take = (event) => {
    event.preventDefault();
    const value = field.current.value.trim();
    if (!value) return;
    if (hadKey()) forgetAll();
    setKey(value, keep);
    close();
    onKey();
  };
  const forget = () => {
    forgetKey();
    forgetAll();
    close();
    onKey();
  };
  return html`
    <${Dialog} label="API key" kind="small" onClose=${close}>
      <form onSubmit=${take}>
        <h2>This service needs a key</h2>
        <p>${keyWanted.wrong ? html`<strong class="fault" role="alert">${keyWanted.detail}</strong>` : "Ask the operator of the service for one."}</p>
        <label for="key">API key</label>
        <input id="key" type="password" ref=${field} autocomplete="off" spellcheck=${false} autofocus required />
        <label class="check">
          <input type="checkbox" checked=${keep} onChange=${(event) => setKeep(event.target.checked)} />
          <span>Keep the key and my images in this browser<span class="hint">Otherwise the key is forgotten when this tab is closed.</span></span>
        </label>
        <div class="actions">
          <button type="submit" class="primary">Use this key</button>
          ${hadKey() && html`<${Action} icon="trash" label="Forget the key and my images" onClick=${forget} />`}
        </div>
      </form>
    <//>
  `;
}

export function CodeDialog() {
  const { code } = useStore();
  const [language, setLanguage] = useState("curl");
  const [copied, setCopied] = useState(false);
  if (!code) return null;
  const text = snippet(language, code);
  const copy = async () => {
    setCopied(await copyText(text));
    setTimeout(() => setCopied(false), 2000);
  };
  const close = () => change({ code: null });
  return html`
    <${Dialog} label="The request as code" kind="wide" onClose=${close}>
      <div class="title"><h2>The same request as code</h2><${Action} icon="close" label="Close" short onClick=${close} /></div>
      <${Chips} label="Language" chosen=${language} onChoose=${setLanguage}
        choices=${Object.entries(LANGUAGES).map(([value, name]) => ({ value, text: name }))} />
      <pre tabindex="0" aria-label="Code"><code>${text}</code></pre>
      <div class="actions">
        <button type="button" class="primary" onClick=${copy}>${copied ? "Copied" : "Copy"}</button>
        ${filesOf(code).map(({ name, blob }) => html`<${File} key=${name} name=${name} blob=${blob} />`)}
      </div>
    <//>
  `;
}

// An image that the code reads.
function File({ name, blob }) {
  const [url, setUrl] = useState("");
  useEffect(() => {
    const made = URL.createObjectURL(blob);
    setUrl(made);
    return () => URL.revokeObjectURL(made);
  }, [blob]);
  return html`<a class="action" href=${url} download=${name}><${Icon} name="down" /><span>${name}</span></a>`;
}

// Without https:// there is no clipboard but the old one.
async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text).then(() => true, () => false);
  const range = document.createRange();
  range.selectNodeContents(document.querySelector("dialog pre"));
  getSelection().removeAllRanges();
  getSelection().addRange(range);
  return document.execCommand("copy");
}

export function Viewer() {
  const { viewing, jobs } = useStore();
  const shown = entries(jobs).filter(({ job, index }) => job.images[index]);
  const chosen = selection(entries(jobs));
  const at = shown.findIndex(({ key }) => key === chosen?.key);
  if (!viewing || at < 0) return null;
  const { job, index } = shown[at];
  const image = job.images[index];
  const go = (step) => shown[at + step] && change({ selected: shown[at + step].key });
  const close = () => change({ viewing: false });
  const keys = (event) => {
    if (event.key === "ArrowLeft") go(-1);
    if (event.key === "ArrowRight") go(1);
  };
  return html`
    <${Dialog} label="Image" kind="viewer" onClose=${close}>
      <div onKeyDown=${keys}>
        <img src=${image.url} alt=${job.settings.prompt ?? "Image"} />
        <div class="bar">
          <${Action} icon="left" label="Newer image" short disabled=${at === 0} onClick=${() => go(-1)} />
          <${Action} icon="right" label="Older image" short disabled=${at === shown.length - 1} onClick=${() => go(1)} />
          <a class="action short" href=${image.url} download=${fileName(job, index)} aria-label="Download" title="Download"><${Icon} name="down" /></a>
          <${Action} icon="close" label="Close" short autofocus onClick=${close} />
        </div>
      </div>
    <//>
  `;
}

export const KeyButton = () => {
  const { keyed } = useStore();
  if (!keyed) return null;
  return html`<${Action} icon="key" label="API key" onClick=${() => change({ keyWanted: {} })} />`;
};

export const wanted = (error, wrong) => {
  if (!state.keyWanted) change({ keyed: true, keyWanted: { wrong, detail: error.detail } });
};
