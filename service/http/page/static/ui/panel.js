// The part of the form for the image that the next one starts from.

import { html, useRef } from "../preact.js";
import { hasMask, removeInput, takeFile } from "../core/input.js";
import { change, fill, modelOf, useStore } from "../core/store.js";
import { Fold } from "./extras.js";
import { Choice, Faults, NumberField, Slider, told } from "./fields.js";
import { Action } from "./icons.js";
import { Overlay } from "./painter.js";

const TYPES = "image/png,image/jpeg,image/webp,image/avif";
const RESIZES = [["", "Crop (default)"], ["stretch", "Stretch"], ["fill", "Fill with its edges"]];
const FILLS = [["", "Original (default)"], ["noise", "Noise"], ["blur", "Blur"]];
const AREAS = [
  ["", "Whole image (default)"], ["32", "Masked part with 32 pixels around it"],
  ["96", "Masked part with 96 pixels around it"],
];
const SIDES = ["left", "top", "right", "bottom"];
const PADS = SIDES.map((side) => `pad.${side}`);
const FURTHEST = { minimum: 0, maximum: 1024, multiple_of: 8 };

export function InputImage() {
  const { input, faults } = useStore();
  const file = useRef(null);
  const choose = (event) => {
    const [chosen] = event.target.files;
    if (chosen) takeFile(chosen);
    event.target.value = "";
  };
  const ask = () => file.current.click();
  return html`
    <fieldset class="field input-image" id="input-image">
      <legend>Input image</legend>
      ${input ? html`<${Chosen} input=${input} onOther=${ask} />` : html`
        <div class="offer">
          <${Action} icon="image" label="Start from an image" ...${told(faults, "image")} onClick=${ask} />
          <span class="hint">or drop or paste one</span>
        </div>`}
      <input type="file" class="quiet" ref=${file} accept=${TYPES} tabindex="-1"
        aria-label="Image to start from" onChange=${choose} />
      <${Faults} name="image" /><${Faults} name="mask" />
    </fieldset>
  `;
}

function Chosen({ input, onOther }) {
  const { form } = useStore();
  const model = modelOf(form);
  const masked = hasMask(input);
  const padded = PADS.some((name) => form[name] > 0);
  return html`
    <${Thumbnail} input=${input} pad=${SIDES.map((side) => Number(form[`pad.${side}`]) || 0)} />
    <p class="hint name">${input.name} · ${input.width} × ${input.height}</p>
    <div class="actions">
      <${Action} icon="brush" label=${masked ? "Change the mask" : "Paint a mask"}
        onClick=${() => change({ painting: true })} />
      <${Action} icon="file" label="Another" onClick=${onOther} />
      <${Action} icon="close" label="Remove the image" short onClick=${() => removeInput()} />
    </div>
    ${model.limits.strength && html`<${Slider} name="strength" label="Strength" step="0.05" />`}
    <${Choice} name="resize" label="Resize" choices=${RESIZES} />
    ${(masked || padded) && html`
      <div class="pair">
        <${Choice} name="mask_fill" label="Masked content" choices=${FILLS} />
        <${NumberField} name="mask_blur" label="Mask blur" hint="pixels" />
      </div>
      <${Choice} name="mask_padding" label="Inpaint area" choices=${AREAS} />`}
    <${Fold} title="Outpaint: extend the image" names=${PADS}>
      <div class="pads">
        ${SIDES.map((side) => html`
          <${NumberField} key=${side} name=${`pad.${side}`} label=${side[0].toUpperCase() + side.slice(1)}
            placeholder="0" limits=${FURTHEST} />`)}
      </div>
    <//>
  `;
}

// The image with its mask, and the room that is added around it.
function Thumbnail({ input, pad: [left, top, right, bottom] }) {
  const { width, height } = input;
  const [wide, high] = [width + left + right, height + top + bottom];
  const place = {
    left: `${(100 * left) / wide}%`,
    top: `${(100 * top) / high}%`,
    width: `${(100 * width) / wide}%`,
    height: `${(100 * height) / high}%`,
  };
  return html`
    <div class="thumbnail" style=${{ aspectRatio: `${wide} / ${high}`, "--ratio": wide / high }}>
      <div class="placed" style=${place}>
        <img src=${input.url} alt=${`Input image: ${input.name}`} />
        <${Overlay} input=${input} strokes=${input.strokes} longest=${512} />
      </div>
    </div>
  `;
}
