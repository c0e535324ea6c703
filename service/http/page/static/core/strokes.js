// A mask as the strokes of a brush, in pixels of the image: they can be undone, and drawn at any
// size. A stroke is {size, erase, points: [x, y, …]}; {clear: true} starts anew.

const LONGEST = 2048;

const left = (strokes) => strokes.slice(strokes.findLastIndex(({ clear }) => clear) + 1);

export const isPainted = (strokes) => left(strokes).some(({ erase }) => !erase);

export function draw(context, strokes, { scale, colour, inverted = false }) {
  const { width, height } = context.canvas;
  context.setTransform(1, 0, 0, 1, 0, 0);
  context.globalCompositeOperation = "source-over";
  context.clearRect(0, 0, width, height);
  context.setTransform(scale, 0, 0, scale, 0, 0);
  Object.assign(context, { lineCap: "round", lineJoin: "round" });
  Object.assign(context, { strokeStyle: colour, fillStyle: colour });
  for (const { size, erase, points } of left(strokes)) {
    context.globalCompositeOperation = erase ? "destination-out" : "source-over";
    context.lineWidth = size;
    context.beginPath();
    context.moveTo(points[0], points[1]);
    // Lines without a length are not drawn everywhere.
    context.lineTo(points[0] + 0.01, points[1]);
    for (let at = 2; at < points.length; at += 2) context.lineTo(points[at], points[at + 1]);
    context.stroke();
  }
  if (inverted && isPainted(strokes)) {
    context.globalCompositeOperation = "source-out";
    context.fillRect(0, 0, width / scale, height / scale);
  }
}

// What is sent: white where the image is painted, black elsewhere.
export function maskOf({ strokes, width, height }) {
  const scale = Math.min(1, LONGEST / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  draw(context, strokes, { scale, colour: "#fff" });
  context.globalCompositeOperation = "destination-over";
  context.fillStyle = "#000";
  context.fillRect(0, 0, width, height);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

// Points that lie closer to the last one than the brush shows are left out.
export function extended(stroke, x, y) {
  const { points, size } = stroke;
  const [lastX, lastY] = points.slice(-2);
  if (Math.hypot(x - lastX, y - lastY) * 8 < size) return stroke;
  return { ...stroke, points: [...points, Math.round(x), Math.round(y)] };
}
