// The page: what it is put together from, and how it starts.

import { html, render, useEffect, useState } from "../preact.js";
import { address, getJson, hasKey, onKeyNeeded } from "../core/api.js";
import { follow, refresh, resume } from "../core/follow.js";
import { restoreInput } from "../core/input.js";
import { local, onOthers } from "../core/storage.js";
import { change, state, useStore } from "../core/store.js";
import { CodeDialog, KeyButton, KeyDialog, Viewer, wanted } from "./dialogs.js";
import { DropZone } from "./files.js";
import { Form } from "./form.js";
import { Gallery } from "./gallery.js";
import { Action } from "./icons.js";
import { Painter } from "./painter.js";
import { anythingRuns, Stage } from "./stage.js";
import { Status } from "./status.js";

const THEME = "sd-api.theme";
const THEMES = ["auto", "light", "dark"];
const RETRY_MS = 3000;

// Ask for what the form is made of; the service may start later than the page.
async function begin() {
  change({ keyed: state.keyed || hasKey() });
  try {
    // One after the other: a wrong key is sent once.
    const { models } = await getJson("/models");
    const { adapters } = await getJson("/models/adapters");
    change({ models, adapters, unreachable: false });
    await resume();
  } catch (error) {
    if (error.status === 401) return;
    change({ unreachable: error.code === "unreachable" });
    setTimeout(begin, error.retryAfter ? error.retryAfter * 1000 : RETRY_MS);
  }
}

// Limits and defaults are better known once a model has been loaded.
async function modelsAgain() {
  const { models } = await getJson("/models");
  change({ models });
}

function Page() {
  const { health, said, unreachable, keyed, keyWanted, models } = useStore();
  useEffect(() => {
    if (models.length) modelsAgain().catch(() => undefined);
  }, [health?.status]);
  return html`
    <header class="top">
      <h1><img src=${new URL("../icon.svg", import.meta.url)} alt="" width="28" height="28" />sd-api</h1>
      <${Status} />
      <div class="right">
        <${KeyButton} />
        <${Theme} />
        <a class="action" href=${address("docs")}>API</a>
      </div>
    </header>
    ${unreachable && html`
      <p class="banner" role="alert">The service does not answer. The page keeps trying; work that was accepted is not lost.</p>`}
    ${keyed && !keyWanted && !models.length && html`
      <p class="banner" role="alert">This service needs a key: choose “API key” at the top.</p>`}
    <main>
      <${Form} />
      <div class="results"><${Stage} /><${Gallery} /></div>
    </main>
    <${KeyDialog} onKey=${begin} />
    <${CodeDialog} />
    <${Viewer} />
    <${Painter} />
    <${DropZone} />
    <p class="quiet" role="status">${said}</p>
  `;
}

function Theme() {
  const [theme, setTheme] = useState(local.get(THEME) ?? "auto");
  useEffect(() => {
    document.documentElement.dataset.theme = theme;
    local.set(THEME, theme);
  }, [theme]);
  const next = THEMES[(THEMES.indexOf(theme) + 1) % THEMES.length];
  return html`<${Action} icon="moon" label=${`Colours: ${theme}. Change to ${next}`} short onClick=${() => setTheme(next)} />`;
}

onKeyNeeded(wanted);
onOthers(refresh);
document.addEventListener("visibilitychange", () =>
  document.visibilityState === "visible" && state.started ? refresh() : follow(),
);
// Without stored jobs the images come on connections that end with the page.
addEventListener("beforeunload", (event) => {
  if (!state.durable && anythingRuns()) event.preventDefault();
});
render(html`<${Page} />`, document.getElementById("page"));
restoreInput();
begin();
