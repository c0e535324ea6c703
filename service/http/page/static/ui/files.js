// An image that is dropped, chosen or pasted fills the form with its settings, or is what the next
// one starts from.

import { html, useEffect, useState } from "../preact.js";
import { textsOf } from "../core/imagefile.js";
import { parsedInfotext } from "../core/infotext.js";
import { removeInput, takeFile } from "../core/input.js";
import { formOf } from "../core/settings.js";
import { change, fill, state } from "../core/store.js";

export async function readFile(file, otherwise = withoutSettings) {
  if (!file) return;
  const found = settingsIn(await textsOf(file).catch(() => ({})));
  if (found) take(found, "The form has the settings of that image.");
  else await otherwise(file);
}

const withoutSettings = ({ name }) =>
  change({ notice: { detail: `${name} has no settings in it.` } });

export function take({ settings, unknown }, said) {
  fill(formOf(settings, state.models, { seed: true }));
  if (settings.image) removeInput();
  const missing = unknown.length ? ` Not known here: ${unknown.join(", ")}.` : "";
  const started = settings.image ? " The image that it started from is not in it: choose it again." : "";
  change({ faults: {}, notice: { detail: said + missing + started } });
}

// This service writes all there is to know as JSON; other tools read and write `parameters`.
function settingsIn(texts) {
  try {
    const metadata = JSON.parse(texts.metadata);
    if (typeof metadata.prompt === "string") return { settings: metadata, unknown: [] };
  } catch {
    // Not ours.
  }
  return texts.parameters ? parsedInfotext(texts.parameters, state.models) : null;
}

export function DropZone() {
  const [over, setOver] = useState(false);
  useEffect(() => {
    const hasFile = (event) => event.dataTransfer?.types.includes("Files");
    const listeners = {
      dragover: (event) => {
        if (!hasFile(event)) return;
        event.preventDefault();
        setOver(true);
      },
      dragleave: (event) => event.relatedTarget === null && setOver(false),
      drop: (event) => {
        if (!hasFile(event)) return;
        event.preventDefault();
        setOver(false);
        const [file] = event.dataTransfer.files;
        if (event.target.closest?.("[data-settings]")) readFile(file);
        else if (file) takeFile(file);
      },
      paste: pasted,
    };
    const all = Object.entries(listeners);
    all.forEach(([kind, listener]) => addEventListener(kind, listener));
    return () => all.forEach(([kind, listener]) => removeEventListener(kind, listener));
  }, []);
  if (!over) return null;
  return html`
    <div class="drop">
      <p data-input>Start from this image</p>
      <p data-settings>Use its settings</p>
    </div>
  `;
}

function pasted(event) {
  const [file] = event.clipboardData.files;
  const found = file ? null : parsedInfotext(event.clipboardData.getData("text"), state.models);
  if (!file && !found) return;
  event.preventDefault();
  if (file) readFile(file, takeFile);
  else take(found, "The form has the settings of the pasted text.");
}
