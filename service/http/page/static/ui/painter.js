// The brush: a dialog in which the part of an image is painted that is made anew.

import { html, useEffect, useRef, useState } from "../preact.js";
import { setStrokes } from "../core/input.js";
import { change, fill, useStore } from "../core/store.js";
import { draw, extended, isPainted } from "../core/strokes.js";
import { Dialog } from "./dialogs.js";
import { Chips } from "./fields.js";
import { Action } from "./icons.js";

// Stripes are seen on an image of any colour.
const COLOURS = ["#ff3d14", "#fff"];
const STRIPE = 6;
const TOOLS = [{ value: "brush", text: "Brush" }, { value: "eraser", text: "Eraser" }];
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

function stripes(context, scale) {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 4 * STRIPE;
  const pen = tile.getContext("2d");
  [pen.fillStyle, pen.strokeStyle] = COLOURS;
  pen.fillRect(0, 0, tile.width, tile.height);
  pen.lineWidth = STRIPE;
  for (const from of [-1, 0, 1]) {
    pen.moveTo((from - 0.5) * tile.width, 1.5 * tile.width);
    pen.lineTo((from + 1.5) * tile.width, -0.5 * tile.width);
  }
  pen.stroke();
  const pattern = context.createPattern(tile, "repeat");
  pattern.setTransform(new DOMMatrix().scale(1 / scale));
  return pattern;
}

// What is painted, as it lies on the image.
export function Overlay({ input, strokes, longest }) {
  const { form } = useStore();
  const canvas = useRef(null);
  const scale = Math.min(1, longest / Math.max(input.width, input.height));
  useEffect(() => {
    const context = canvas.current.getContext("2d");
    const look = { scale, colour: stripes(context, scale), inverted: form.mask_invert === true };
    draw(context, strokes, look);
  });
  return html`
    <canvas class="overlay" ref=${canvas} aria-hidden="true"
      width=${Math.round(input.width * scale)} height=${Math.round(input.height * scale)}></canvas>
  `;
}

export function Painter() {
  const { input, painting } = useStore();
  if (!input || !painting) return null;
  return html`
    <${Dialog} label="Mask" kind="viewer painter" onClose=${() => change({ painting: false })}>
      <${Tools} input=${input} />
    <//>
  `;
}

const close = () => change({ painting: false });

function Tools({ input }) {
  const { form } = useStore();
  const short = Math.min(input.width, input.height);
  const [size, setSize] = useState(Math.max(2, Math.round(short / 8)));
  const [tool, setTool] = useState("brush");
  const [undone, setUndone] = useState([]);
  const { strokes } = input;
  const sized = (value) => setSize(Math.min(Math.max(Math.round(value), 2), Math.max(short, 2)));
  const add = (stroke) => {
    setStrokes([...strokes, stroke]);
    setUndone([]);
  };
  const undo = () => {
    if (!strokes.length) return;
    setStrokes(strokes.slice(0, -1));
    setUndone([...undone, strokes.at(-1)]);
  };
  const redo = () => {
    if (!undone.length) return;
    setStrokes([...strokes, undone.at(-1)]);
    setUndone(undone.slice(0, -1));
  };
  const keys = (event) => {
    const key = event.key.toLowerCase();
    if (key === "[") sized(size / 1.25);
    else if (key === "]") sized(size * 1.25 + 1);
    else if ((event.ctrlKey || event.metaKey) && "zy".includes(key)) {
      event.preventDefault();
      (key === "y" || event.shiftKey ? redo : undo)();
    }
  };
  return html`
    <div class="paint" onKeyDown=${keys}>
      <${Board} input=${input} size=${size} erase=${tool === "eraser"} onStroke=${add} />
      <div class="tools">
        <${Chips} label="Tool" choices=${TOOLS} chosen=${tool} onChoose=${setTool} />
        <label class="brush-size">Size
          <input type="range" min="2" max=${Math.max(short, 2)} value=${size}
            onInput=${(event) => sized(Number(event.target.value))} />
        </label>
        <div class="actions">
          <${Action} icon="undo" label="Undo" short disabled=${!strokes.length} onClick=${undo} />
          <${Action} icon="redo" label="Redo" short disabled=${!undone.length} onClick=${redo} />
          <${Action} icon="trash" label="Clear the mask" short disabled=${!isPainted(strokes)}
            onClick=${() => add({ clear: true })} />
        </div>
        <label class="check">
          <input type="checkbox" checked=${form.mask_invert === true}
            onChange=${(event) => fill({ mask_invert: event.target.checked || "" })} />
          <span>Invert the mask</span>
        </label>
        <button type="button" class="primary" onClick=${close}>Done</button>
      </div>
      <p class="hint" id="paint-help">Paint over the part to make anew. Keyboard: arrow keys move the
        brush, Space starts and ends a stroke, [ and ] change the size, Ctrl+Z takes a stroke back.</p>
    </div>
  `;
}

function Board({ input, size, erase, onStroke }) {
  const { width, height, strokes } = input;
  const board = useRef(null);
  const [pen, setPen] = useState({ x: width / 2, y: height / 2, shown: false });
  const [stroke, setStroke] = useState(null);
  useEffect(() => {
    board.current.focus();
  }, []);
  const at = (event) => {
    const box = board.current.getBoundingClientRect();
    const x = ((event.clientX - box.left) / box.width) * width;
    return [x, ((event.clientY - box.top) / box.height) * height];
  };
  const begun = (x, y) => ({ size, erase, points: [Math.round(x), Math.round(y)] });
  const down = (event) => {
    if (event.button > 0 || !event.isPrimary) return;
    board.current.setPointerCapture(event.pointerId);
    setStroke(begun(...at(event)));
  };
  const move = (event) => {
    const [x, y] = at(event);
    setPen({ x, y, shown: true });
    if (!stroke || !event.isPrimary || !event.buttons) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    const all = passed.length ? passed : [event];
    setStroke(all.reduce((longer, each) => extended(longer, ...at(each)), stroke));
  };
  const lift = () => {
    if (stroke) onStroke(stroke);
    setStroke(null);
  };
  const keys = (event) => {
    if (event.key === " ") {
      event.preventDefault();
      if (stroke) lift();
      else setStroke(begun(pen.x, pen.y));
      setPen({ ...pen, shown: true });
    } else if (event.key in MOVES) {
      event.preventDefault();
      const [right, below] = MOVES[event.key];
      const far = event.shiftKey ? 1 : Math.max(1, Math.round(size / 4));
      const x = Math.min(Math.max(pen.x + right * far, 0), width);
      const y = Math.min(Math.max(pen.y + below * far, 0), height);
      setPen({ x, y, shown: true });
      if (stroke) setStroke(extended(stroke, x, y));
    }
  };
  const circle = {
    left: `${(100 * pen.x) / width}%`,
    top: `${(100 * pen.y) / height}%`,
    width: `${(100 * size) / width}%`,
  };
  return html`
    <div class="area">
      <div class="board" ref=${board} role="application" tabindex="0" aria-label="Mask of the image"
        aria-describedby="paint-help" style=${{ aspectRatio: `${width} / ${height}`, "--ratio": width / height }}
        onPointerDown=${down} onPointerMove=${move} onPointerUp=${lift} onPointerCancel=${lift}
        onPointerLeave=${() => setPen({ ...pen, shown: false })} onKeyDown=${keys}
        onFocus=${() => setPen({ ...pen, shown: true })}>
        <img src=${input.url} alt="" draggable=${false} />
        <${Overlay} input=${input} strokes=${stroke ? [...strokes, stroke] : strokes} longest=${1600} />
        ${pen.shown && html`<span class=${`pen ${stroke ? "down" : ""}`} style=${circle}></span>`}
      </div>
    </div>
  `;
}
