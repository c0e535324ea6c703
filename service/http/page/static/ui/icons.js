// Drawings on buttons; each button has words as well.

import { html } from "../preact.js";

const PATHS = {
  close: "M5 5l10 10M15 5L5 15",
  code: "M7 6l-4 4 4 4M13 6l4 4-4 4",
  dice: "M4 4h12v12H4zM7.5 7.5h.01M12.5 12.5h.01M10 10h.01",
  down: "M10 3v10M6 9l4 4 4-4M4 17h12",
  file: "M5 3h7l4 4v10H5zM12 3v4h4",
  flag: "M5 17V4h9l-2 3 2 3H5",
  fill: "M4 5h12M4 10h8M4 15h5M15 11v6M12 14h6",
  image: "M3 4h14v12H3zM6 13l3-4 3 3 2-2 3 3M7 7.5h.01",
  left: "M12 5l-5 5 5 5",
  brush: "M16 4L9 11M8 12c-3 0-2 4-5 4 1 1 6 1 6-3",
  moon: "M15.5 12.5A6.5 6.5 0 017.5 4.5a6.5 6.5 0 108 8z",
  plus: "M10 4v12M4 10h12",
  key: "M12.5 10.5a3.5 3.5 0 10-3-3L4 13v3h3v-2h2v-2l1.5-1.5zM14 6h.01",
  redo: "M16 8H8a4 4 0 000 8h4M13 5l3 3-3 3",
  right: "M8 5l5 5-5 5",
  seed: "M10 17V9M10 11c-4 0-6-2-6-6 4 0 6 2 6 6zM10 9c0-3 2-5 6-5 0 4-2 6-6 6",
  undo: "M4 8h8a4 4 0 010 8H8M7 5L4 8l3 3",
  trash: "M4 6h12M8 6V4h4v2M6 6l1 11h6l1-11",
};

export const Icon = ({ name }) => html`
  <svg class="icon" viewBox="0 0 20 20" aria-hidden="true"><path d=${PATHS[name]} /></svg>
`;

// A button with a drawing; where the words are not shown they are its label.
export const Action = ({ icon, label, short = false, ...rest }) => html`
  <button type="button" class=${`action ${short ? "short" : ""}`} aria-label=${short ? label : undefined}
    title=${short ? label : undefined} ...${rest}>
    <${Icon} name=${icon} />${short ? null : html`<span>${label}</span>`}
  </button>
`;
