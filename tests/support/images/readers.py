"""Readers of the text of an image as other programs read it, rebuilt from what they do.

AUTOMATIC1111: stable-diffusion-webui 1.10, ``modules/infotext_utils.py``,
``parse_generation_parameters``. Civitai: ``src/utils/metadata/automatic.metadata.ts`` of
civitai/civitai at 0178ea2.
"""

import json
import re
from typing import Any

A1111_PAIR = re.compile(r'\s*(\w[\w \-/]+):\s*("(?:\\.|[^\\"])+"|[^,]*)(?:,|$)')
CIVITAI_TAG = re.compile(r"<(lora|hypernet):([a-zA-Z0-9_.\-]+):([0-9.]+)>")
CIVITAI_KEYS = {
    "Seed": "seed",
    "CFG scale": "cfgScale",
    "Sampler": "sampler",
    "Steps": "steps",
    "Clip skip": "clipSkip",
}
MARK = "Negative prompt:"


def a1111(text: str) -> dict[str, str]:
    """Return what AUTOMATIC1111 puts into its form."""
    *lines, last = text.strip().split("\n")
    if len(A1111_PAIR.findall(last)) < 3:
        lines.append(last)
        last = ""
    prompts = ["", ""]
    negative = False
    for line in map(str.strip, lines):
        if line.startswith(MARK):
            negative = True
            line = line[16:].strip()  # noqa: PLW2901 - as there
        prompts[negative] += ("\n" if prompts[negative] else "") + line
    found = {"Prompt": prompts[0], "Negative prompt": prompts[1]}
    for name, value in A1111_PAIR.findall(last):
        if not value:
            continue
        text = json.loads(value) if value[0] == '"' == value[-1] else value
        if size := re.match(r"^(\d+)x(\d+)$", text):
            found |= {f"{name}-1": size[1], f"{name}-2": size[2]}
        else:
            found[name] = text
    return found


def civitai(text: str) -> dict[str, Any]:
    """Return what Civitai shows of an image, with the models and LoRA files that it finds."""
    assert "Steps: " in text, "it is not read at all"
    lines = [line for line in text.split("\n") if line.strip()]
    for key in ("Template: ", "Negative Template: "):
        place = next((i for i, line in enumerate(lines) if line.startswith(key)), None)
        if place is None:
            continue
        del lines[place]
        while place < len(lines) and not re.search(r"[\w\s]+: ", lines[place]):
            del lines[place]
    details = next((line for line in lines if line.startswith("Steps: ")), "")
    if details:
        lines.remove(details)
    for key in ("Resources: ", "Hashed prompt: ", "Hashed Negative prompt: "):
        details = details.split(key)[0]
    hashes = {}
    if found := re.search(r", Hashes:\s*({[^}]+})", details):
        hashes = json.loads(found[1])
        details = details.replace(found[0], "", 1)
    metadata: dict[str, Any] = {CIVITAI_KEYS.get(k, k): v for k, v in _details(details).items()}
    prompt, *negative = (part.strip() for part in "\n".join(lines).split(MARK))
    metadata |= {"prompt": prompt, "negativePrompt": " ".join(negative).strip()}
    resources = [
        {"type": kind, "name": name, "weight": float(weight)}
        for kind, name, weight in CIVITAI_TAG.findall(prompt)
    ]
    for name, value in metadata.pop("Lora hashes", {}).items():
        hashes[f"lora:{name}"] = value
        known = next((each for each in resources if each["name"] == name), None)
        if known is None:
            resources.append({"type": "lora", "name": name, "hash": value})
        else:
            known["hash"] = value
    if "Model" in metadata and "Model hash" in metadata:
        hashes.setdefault("model", metadata["Model hash"])
        resources.append(
            {"type": "model", "name": metadata["Model"], "hash": metadata["Model hash"]}
        )
    return {**metadata, "hashes": hashes, "resources": resources}


def _details(line: str) -> dict[str, Any]:
    result: dict[str, Any] = {}
    key = value = ""
    quoted = False
    for sign in line:
        if sign == '"':
            if quoted:
                result[key] = _details(value.strip())
                key = ""
            quoted = not quoted
        elif sign == ":" and not quoted:
            key, value = CIVITAI_KEYS.get(value.strip(), value.strip()), ""
        elif sign == "," and not quoted:
            if key:
                result[key] = value.strip()
            key = value = ""
        else:
            value += sign
    if key:
        result[key] = value.strip()
    return result
