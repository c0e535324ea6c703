// The same request for a terminal, Python and JavaScript; each stores the images it gets.

import { address, hasKey } from "./api.js";

export const LANGUAGES = { curl: "curl", python: "Python", javascript: "JavaScript" };

export function snippet(language, body) {
  return { curl, python, javascript }[language](address("generate").href, body);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;
const several = (body) => (body.num_images ?? 1) > 1;

function curl(url, body) {
  const key = hasKey() ? `  -H "Authorization: Bearer $SD_API_KEY" \\\n` : "";
  const send = `curl -fsS ${quoted(url)} \\\n${key}  -H 'Content-Type: application/json' `;
  const data = `  -d ${quoted(JSON.stringify(body))}`;
  if (!several(body)) return `${send}-H 'Accept: image/png' \\\n${data} -o image.png`;
  const split = `jq -r '.images_base64 | to_entries[] | "\\(.key) \\(.value)"' |
  while read -r n image; do echo "$image" | base64 -d > "image-$n.png"; done`;
  return `${send}\\\n${data} |\n  ${split}`;
}

function python(url, body) {
  const key = hasKey() ? `\n    "Authorization": f"Bearer {os.environ['SD_API_KEY']}",` : "";
  return `import base64
import json
${key ? "import os\n" : ""}import urllib.request

body = json.loads(${pythonString(JSON.stringify(body))})
headers = {
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

function javascript(url, body) {
  const key = hasKey() ? `\n    Authorization: \`Bearer \${process.env.SD_API_KEY}\`,` : "";
  return `// Node 20 or newer, as a module (image.mjs).
import { writeFile } from "node:fs/promises";

const answer = await fetch(${JSON.stringify(url)}, {
  method: "POST",
  headers: {
    "Content-Type": "application/json",${key}
  },
  body: JSON.stringify(${JSON.stringify(body, null, 2).replaceAll("\n", "\n  ")}),
});
if (!answer.ok) throw new Error((await answer.json()).detail);
const made = await answer.json();
const images = made.images_base64 ?? [made.image_base64];
for (const [index, image] of images.entries()) {
  await writeFile(\`image-\${index}.png\`, Buffer.from(image, "base64"));
}
`;
}
