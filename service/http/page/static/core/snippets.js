// The same request for a terminal, Python and JavaScript; each stores the images it gets. Images
// that are sent are files next to it.

import { address, hasKey } from "./api.js";

export const LANGUAGES = { curl: "curl", python: "Python", javascript: "JavaScript" };

export function snippet(language, body) {
  const json = Object.fromEntries(Object.entries(body).filter(([, value]) => !(value instanceof Blob)));
  return { curl, python, javascript }[language](address("generate").href, json, filesOf(body));
}

// The images of a request by the field that they are in: name and bytes. image.png is what is made.
export const filesOf = (body) =>
  Object.entries(body)
    .filter(([, value]) => value instanceof Blob)
    .map(([field, blob]) => ({ field, blob, name: `${NAMES[field]}.${kindOf(blob)}` }));

const NAMES = { image: "input", mask: "mask" };
const kindOf = ({ type }) => type.split("/")[1]?.replace("jpeg", "jpg") || "png";

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const several = (body) => (body.num_images ?? 1) > 1;

function curl(url, body, files) {
  const lines = [`curl -fsS ${quoted(url)}`];
  if (hasKey()) lines.push(`-H "Authorization: Bearer $SD_API_KEY"`);
  if (!several(body)) lines.push("-H 'Accept: image/png'");
  if (files.length) lines.push(...parts(body, files));
  else lines.push("-H 'Content-Type: application/json'", `-d ${quoted(JSON.stringify(body))}`);
  const send = lines.join(" \\\n  ");
  if (!several(body)) return `${send} -o image.png`;
  return `${send} |
  jq -r '.images_base64 | to_entries[] | "\\(.key) \\(.value)"' |
  while read -r n image; do echo "$image" | base64 -d > "image-$n.png"; done`;
}

function parts(body, files) {
  const plain = (value) => (typeof value === "object" ? JSON.stringify(value) : value);
  const texts = Object.entries(body).map(([name, value]) => quoted(`${name}=${plain(value)}`));
  const images = files.map(({ field, name }) => `-F ${field}=@${name}`);
  return [...texts.map((each) => `--form-string ${each}`), ...images];
}

function python(url, body, files) {
  const key = hasKey() ? `\n    "Authorization": f"Bearer {os.environ['SD_API_KEY']}",` : "";
  return `import base64
import json
${key ? "import os\n" : ""}import urllib.request

body = json.loads(${pythonString(JSON.stringify(body))})
${files.map(({ field, name }) => `with open("${name}", "rb") as file:
    body["${field}"] = base64.b64encode(file.read()).decode()
`).join("")}headers = {
    "Content-Type": "application/json",${key}
}
request = urllib.request.Request(
    ${JSON.stringify(url)}, data=json.dumps(body).encode(), headers=headers
)
with urllib.request.urlopen(request, timeout=300) as answer:
    made = json.load(answer)
images = made.get("images_base64", [made["image_base64"]])
for index, image in enumerate(images):
    with open(f"image-{index}.png", "wb") as file:
        file.write(base64.b64decode(image))
`;
}

// A JSON string is a Python string, half surrogate pairs apart, which no form can hold.
const pythonString = (text) => JSON.stringify(text);

function javascript(url, body, files) {
  const key = hasKey() ? `\n    Authorization: \`Bearer \${process.env.SD_API_KEY}\`,` : "";
  return `// Node 20 or newer, as a module (image.mjs).
import { ${files.length ? "readFile, " : ""}writeFile } from "node:fs/promises";

const body = ${JSON.stringify(body, null, 2)};
${files.map(({ field, name }) => `body.${field} = await readFile("${name}", "base64");
`).join("")}const answer = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${key}
  },
  body: JSON.stringify(body),
});
if (!answer.ok) throw new Error((await answer.json()).detail);
const made = await answer.json();
const images = made.images_base64 ?? [made.image_base64];
for (const [index, image] of images.entries()) {
  await writeFile(\`image-\${index}.png\`, Buffer.from(image, "base64"));
}
`;
}
