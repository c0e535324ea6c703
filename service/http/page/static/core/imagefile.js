// Texts in image files: chunks of a PNG, the Exif comment of a WebP or a JPEG. Nothing leaves
// the browser.

const UTF8 = new TextDecoder();
const EXIF_FOLDER = 0x8769;
const USER_COMMENT = 0x9286;
const LONGEST = 16 * 2 ** 20;

// TextDecoder has no Latin-1: what it calls so is Windows-1252.
const latin = (bytes) => Array.from(bytes, (each) => String.fromCharCode(each)).join("");

// The texts of a file by name; A1111's is `parameters`.
export async function textsOf(file) {
  const bytes = new Uint8Array(await file.slice(0, LONGEST).arrayBuffer());
  const view = new DataView(bytes.buffer);
  if (starts(bytes, 0, "\x89PNG")) return pngTexts(bytes, view);
  const exif = starts(bytes, 8, "WEBP") ? webpExif(bytes, view) : jpegExif(bytes, view);
  const comment = exif && userComment(exif);
  return comment ? { parameters: comment } : {};
}

const starts = (bytes, at, text) => latin(bytes.subarray(at, at + text.length)) === text;

async function pngTexts(bytes, view) {
  const texts = {};
  for (let at = 8; at + 12 <= bytes.length; ) {
    const length = view.getUint32(at);
    if (at + 12 + length > bytes.length) break;
    const kind = latin(bytes.subarray(at + 4, at + 8));
    const data = bytes.subarray(at + 8, at + 8 + length);
    if (["tEXt", "iTXt", "zTXt"].includes(kind)) {
      const end = data.indexOf(0);
      texts[latin(data.subarray(0, end))] = await pngText(kind, data.subarray(end + 1));
    }
    at += 12 + length;
  }
  return texts;
}

async function pngText(kind, data) {
  if (kind === "tEXt") return latin(data);
  if (kind === "zTXt") return latin(await inflated(data.subarray(1)));
  const language = data.indexOf(0, 2);
  const text = data.subarray(data.indexOf(0, language + 1) + 1);
  return UTF8.decode(data[0] ? await inflated(text) : text);
}

async function inflated(data) {
  const stream = new Blob([data]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

function webpExif(bytes, view) {
  for (let at = 12; at + 8 <= bytes.length; ) {
    const length = view.getUint32(at + 4, true);
    if (starts(bytes, at, "EXIF")) return withoutMark(bytes.slice(at + 8, at + 8 + length));
    at += 8 + length + (length % 2);
  }
  return null;
}

function jpegExif(bytes, view) {
  if (bytes[0] !== 0xff || bytes[1] !== 0xd8) return null;
  for (let at = 2; at + 4 <= bytes.length && bytes[at] === 0xff; ) {
    const length = view.getUint16(at + 2);
    if (bytes[at + 1] === 0xe1 && starts(bytes, at + 4, "Exif")) {
      return withoutMark(bytes.slice(at + 4, at + 2 + length));
    }
    at += 2 + length;
  }
  return null;
}

const withoutMark = (bytes) => (starts(bytes, 0, "Exif\0\0") ? bytes.slice(6) : bytes);

// TIFF: a folder of entries, one of which points to another folder (Exif 2.3, 4.6).
function userComment(bytes) {
  const view = new DataView(bytes.buffer);
  const little = view.getUint16(0) === 0x4949;
  const entry = (folder, tag) => {
    const count = view.getUint16(folder, little);
    for (let index = 0; index < count; index += 1) {
      const at = folder + 2 + 12 * index;
      if (view.getUint16(at, little) === tag) return at;
    }
    return null;
  };
  const pointer = entry(view.getUint32(4, little), EXIF_FOLDER);
  const at = pointer && entry(view.getUint32(pointer + 8, little), USER_COMMENT);
  if (!at) return "";
  const from = view.getUint32(at + 8, little);
  const comment = bytes.subarray(from, from + view.getUint32(at + 4, little));
  const text = comment.subarray(8);
  if (!starts(comment, 0, "UNICODE")) return UTF8.decode(text);
  // Writers disagree on the order of bytes: the one that makes more of them letters is meant.
  const zeros = (first) => text.filter((byte, index) => index % 2 === first && byte === 0).length;
  return new TextDecoder(zeros(0) >= zeros(1) ? "utf-16be" : "utf-16le").decode(text);
}
