// An image that is dropped, chosen or pasted fills the form with its settings.

import { html, useEffect, useState } from "../preact.js";
import { textsOf } from "../core/imagefile.js";
import { parsedInfotext } from "../core/infotext.js";
import { formOf } from "../core/settings.js";
import { change, fill, state } from "../core/store.js";

export async function readFile(file) {
  if (!file) return;
  const found = settingsIn(await textsOf(file).catch(() => ({})));
  if (found) take(found, "The form has the settings of that image.");
  else change({ notice: { detail: `${file.name} has no settings in it.` } });
}

export function take({ settings, unknown }, said) {
  fill(formOf(settings, state.models, { seed: true }));
  const missing = unknown.length ? ` Not known here: ${unknown.join(", ")}.` : "";
  change({ faults: {}, notice: { detail: said + missing } });
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
        readFile(event.dataTransfer.files[0]);
      },
      paste: pasted,
    };
    const all = Object.entries(listeners);
    all.forEach(([kind, listener]) => addEventListener(kind, listener));
    return () => all.forEach(([kind, listener]) => removeEventListener(kind, listener));
  }, []);
  return over ? html`<div class="drop"><p>Drop the image to use its settings</p></div>` : null;
}

function pasted(event) {
  const [file] = event.clipboardData.files;
  const found = file ? null : parsedInfotext(event.clipboardData.getData("text"), state.models);
  if (!file && !found) return;
  event.preventDefault();
  if (file) readFile(file);
  else take(found, "The form has the settings of the pasted text.");
}
