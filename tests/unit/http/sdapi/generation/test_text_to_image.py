"""``POST /sdapi/v1/txt2img`` over the fake engine."""

import base64
import io
import json
import re
from typing import Any

import pytest
from PIL import Image
from structlog.testing import capture_logs

from service.http.state import METRICS
from service.images import infotext
from tests.support.samples import sample
from tests.unit.http.sdapi.asking import BODY, V1, ask, draw, info

Fields = dict[str, Any]


def opened(text: str) -> Image.Image:
    """Return an image of an answer, which has no prefix."""
    return Image.open(io.BytesIO(base64.b64decode(text, validate=True)))


async def test_the_answer_is_what_the_clients_read(client):
    """The images without prefix, known fields of the request, and a string of JSON."""
    answer = await draw(client, batch_size=2, n_iter=2, sampler_name="Euler a", cfg_scale=5)
    assert answer.keys() == {"images", "parameters", "info"}
    assert [opened(each).size for each in answer["images"]] == [(256, 256)] * 4
    found = info(answer)
    assert found["all_seeds"] == [7, 8, 9, 10]
    assert [len(found[name]) for name in ("all_prompts", "infotexts", "all_subseeds")] == [4] * 3
    assert (found["seed"], found["batch_size"], found["width"]) == (7, 2, 256)
    assert (found["sampler_name"], found["cfg_scale"], found["steps"]) == ("Euler a", 5.0, 2)
    assert found["infotexts"][1].startswith("a cat\nSteps: 2, Sampler: Euler a, CFG scale: 5, ")
    assert opened(answer["images"][1]).info["parameters"] == found["infotexts"][1]
    assert "Seed: 8" in found["infotexts"][1]
    assert found["warnings"] == []
    assert answer["parameters"]["n_iter"] == 2


async def test_the_job_counts_as_one_of_this_api(client):
    """In the metrics, and with the id of a job."""
    async with client.post(f"{V1}/txt2img", json=BODY) as answer:
        assert answer.status == 200
        assert answer.headers["X-Job-Id"]
    labels = {"api": "sdapi", "outcome": "succeeded", "code": ""}
    assert sample(client.app[METRICS], "sd_jobs_total", **labels) == 1


async def test_the_image_is_that_of_the_native_api(client):
    """With the same values and the same syntax, pixel for pixel."""
    sent: Fields = {"steps": 3, "seed": 11, "negative_prompt": "fog", "prompt": "a (cat:1.2)"}
    one = await draw(client, **sent, sampler_name="DPM++ 2M", cfg_scale=4)
    native = BODY | sent | {"guidance_scale": 4, "prompt_syntax": "a1111"}
    native |= {"sampler": "dpmpp_2m", "schedule": "karras"}
    async with client.post("/generate", json=native) as answer:
        two = await answer.json()
    assert opened(one["images"][0]).tobytes() == opened(two["image_base64"]).tobytes()
    texts = (info(one)["infotexts"][0], opened(two["image_base64"]).info["parameters"])
    mine, theirs = (re.sub(r"Model hash: \w+, ", "", text) for text in texts)  # Known late.
    assert mine == theirs


@pytest.mark.parametrize(
    "fields",
    [
        {"steps": "2", "width": "256", "seed": "7", "batch_size": "1", "n_iter": "1"},
        {"steps": 2.0, "width": 256.0, "seed": 7.0, "n_iter": 1.0, "hr_second_pass_steps": 7.5},
        {"negative_prompt": None, "denoising_strength": None, "styles": None, "eta": None},
        {"restore_faces": "false", "tiling": 0, "enable_hr": None, "send_images": "true"},
        {"hr_scale": "1.0", "unknown": {"deep": [1, 2]}, "hr_additional_modules": []},
    ],
)
async def test_values_are_read_as_generously_as_clients_write_them(client, fields):
    """Texts, floats, null and unknown fields."""
    found = info(await draw(client, **fields))
    assert (found["all_seeds"], found["steps"], found["warnings"]) == ([7], 2, [])


async def test_every_negative_seed_is_random(client):
    """The answer says which one it was."""
    for seed in (-1, -2, "-1", -1.0):
        found = info(await draw(client, seed=seed))
        assert 0 <= found["seed"] < 2**32


async def test_nothing_of_unknown_fields_is_repeated_or_logged(client):
    """Clients send addresses and passwords in the body, and images in scripts."""
    secret: Fields = {"url": "http://chat.example", "auth": "user:hunter2"}
    scripts = {"ControlNet": {"args": [{"image": "hunter3"}]}}
    overrides = {"secret_option": "hunter4"}
    with capture_logs() as logs:
        answer = await draw(client, **secret, alwayson_scripts=scripts, override_settings=overrides)
    for text in (json.dumps(answer), repr(logs)):
        assert "hunter" not in text
        assert "chat.example" not in text
    assert answer["parameters"]["alwayson_scripts"] == {"ControlNet": {"args": []}}
    assert answer["parameters"]["override_settings"] == {}


async def test_what_is_not_done_is_named(client):
    """Each thing once, by the field that asks for it."""
    found = info(
        await draw(
            client,
            alwayson_scripts={"ADetailer": {"args": [True]}},
            styles=["None", "Anime"],
            restore_faces=True,
            tiling=True,
            script_name="X/Y/Z plot",
            override_settings={"eta_noise_seed_delta": 31337, "sd_vae": "other.pt"},
            sampler_name="DDIM",
            scheduler="Karras",
        )
    )
    assert found["warnings"] == [
        "restore_faces: this service does not do it.",
        "tiling: this service does not do it.",
        "script_name: this service does not do it.",
        "alwayson_scripts: there is no ADetailer.",
        "styles: there is no Anime.",
        "scheduler: DDIM does not follow Karras; Automatic is used.",
        "override_settings: eta_noise_seed_delta cannot be changed; it is 0.",
        "override_settings: sd_vae cannot be changed; it is 'Automatic'.",
    ]


async def test_thousands_of_unknown_names_make_a_short_answer(client):
    """They are counted; more than there can be are refused."""
    names: Fields = {f"script {number}": {} for number in range(500)}
    warnings = info(await draw(client, alwayson_scripts=names))["warnings"]
    assert len(warnings) == 17
    assert warnings[-1] == "alwayson_scripts: there is no other (484 more names)."
    many: Fields = {str(number): {} for number in range(513)}
    assert "at most 512" in (await draw(client, 400, alwayson_scripts=many))["detail"]


async def test_sizes_and_steps_that_are_not_possible_are_fitted(client):
    """To the nearest possible ones, which the answer says."""
    found = info(await draw(client, width=1024, height=1024, steps=80))
    assert (found["width"], found["height"], found["steps"]) == (768, 768, 50)
    assert [each.partition(":")[0] for each in found["warnings"]] == ["width and height", "steps"]


async def test_sizes_that_are_not_possible_are_refused_where_the_settings_say_so(serve):
    """In the client's words for the fields."""
    client = await serve(compat_sizes="refuse")
    found = await draw(client, 400, width=1000, cfg_scale=99)
    assert found["detail"].startswith("width: must be a multiple of 64")
    assert "cfg_scale: must be a number" in found["detail"]


@pytest.mark.parametrize(
    ("fields", "status", "detail"),
    [
        ({"sampler_name": "DPM fast"}, 404, "Sampler not found"),
        ({"sampler_index": "nonsense"}, 404, "Sampler not found"),
        ({"batch_size": 3, "n_iter": 2}, 400, "batch_size x n_iter: must be a whole number"),
        ({"batch_size": 0}, 400, "batch_size: must be a whole number between 1 and"),
        ({"steps": "many"}, 400, "steps: must be a whole number"),
        ({"prompt": ""}, 400, "prompt: must be text"),
        ({"prompt": "a <lora:nothing:1>"}, 400, "prompt: There is no adapter 'nothing'"),
        ({"styles": "Anime"}, 400, "styles: must be a list"),
        ({"override_settings": {"sd_model_checkpoint": "other"}}, 404, "There is no model 'other'"),
        ({"model": "other"}, 404, "There is no model 'other'"),
    ],
)
async def test_errors_are_in_the_form_and_words_that_clients_show(client, fields, status, detail):
    """Four fields, none of which repeats the request."""
    answer = await draw(client, status, **fields)
    assert answer.keys() == {"error", "detail", "body", "errors"}
    assert answer["detail"].startswith(detail)
    assert answer["body"] == ""


async def test_images_stay_away_where_nobody_wants_them(client):
    """With ``send_images: false``; what is known of them comes all the same."""
    answer = await draw(client, send_images=False)
    assert (answer["images"], info(answer)["all_seeds"]) == ([], [7])


@pytest.mark.parametrize(
    ("name", "kind"), [("png", "PNG"), ("webp", "WEBP"), ("jpg", "JPEG"), ("JPEG", "JPEG")]
)
async def test_images_come_in_the_format_of_the_option(client, name, kind):
    """``samples_format``, as in AUTOMATIC1111, also for one request."""
    answer = await draw(client, override_settings={"samples_format": name})
    assert opened(answer["images"][0]).format == kind
    text = infotext.read(base64.b64decode(answer["images"][0]))
    assert text in (None, info(answer)["infotexts"][0])


async def test_clip_skip_comes_from_options_or_from_the_field(client):
    """The option of the request goes before the field that other servers have."""
    for fields, layer in (
        ({"clip_skip": 2}, 2),
        ({"override_settings": {"CLIP_stop_at_last_layers": 2.0}}, 2),
        ({"clip_skip": 3, "override_settings": {"CLIP_stop_at_last_layers": 1}}, 1),
        ({"clip_skip": None}, 1),
        ({"clip_skip": -1}, 1),
        ({"clip_skip": "-1"}, 1),
        ({"clip_skip": -1, "override_settings": {"CLIP_stop_at_last_layers": 2}}, 2),
    ):
        assert info(await draw(client, **fields))["clip_skip"] == layer
    await ask(client, "POST", "options", json={"CLIP_stop_at_last_layers": 3})
    for unsaid in (0, -1):
        assert info(await draw(client, clip_skip=unsaid))["clip_skip"] == 3


@pytest.mark.parametrize("name", ["subseed", "seed_resize_from_h", "denoising_strength", "s_noise"])
@pytest.mark.parametrize("value", [2**32 - 1, str(2**32 - 1), 2**63, -(2**63)])
async def test_large_numbers_without_effect_are_no_error(client, name, value):
    """Seeds of a variation have 32 bits in AUTOMATIC1111, and 64 elsewhere."""
    await draw(client, **{name: value})


async def test_eta_goes_to_samplers_that_take_it(client):
    """Others ignore it: clients send 0 or 1 to all of them."""
    found = info(await draw(client, sampler_name="DDIM", eta=0.5))
    assert "Eta: 0.5" in found["infotexts"][0]
    for eta in (0, 1.0):
        assert info(await draw(client, sampler_name="Euler a", eta=eta))["warnings"] == []
    warnings = info(await draw(client, sampler_name="Euler", eta=0.5))["warnings"]
    assert warnings == ["eta: only DDIM and TCD use it here."]


async def test_a_request_that_is_sent_again_is_not_done_twice(tmp_path, serve):
    """With an ``Idempotency-Key``, as on the native API."""
    client = await serve(data_dir=str(tmp_path))
    key = {"Idempotency-Key": "one"}
    first = await draw(client, headers=key)
    async with client.post(f"{V1}/txt2img", json=BODY, headers=key) as answer:
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert (await answer.json())["images"] == first["images"]
