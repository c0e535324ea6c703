"""The APIs that follow other products, against their description and bodies of every kind."""

import base64
import json
from collections import Counter
from typing import Any

import pytest
import requests
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from service.http.openai.schema import REQUEST as OPENAI_REQUEST
from service.http.sdapi.generation.requests import TEXT_TO_IMAGE as A1111_REQUEST
from service.images.encode import MEDIA_TYPES, file
from tests.fuzz.described import GENEROUS, fuzz
from tests.fuzz.error_forms import form_of
from tests.fuzz.serving import Served, serving
from tests.fuzz.test_openapi import DRAWN, KEY, nothing
from tests.support.images.prompts import requests as specs
from tests.support.images.prompts import texts
from tests.support.simulation.fake_engine import gradient

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

PATHS = r"/(?:v1|sdapi|internal|queue|config)(?:/|$)"
GENERATIONS, TEXT_TO_IMAGE = "/v1/images/generations", "/sdapi/v1/txt2img"
OPTIONS, PNG_INFO = "/sdapi/v1/options", "/sdapi/v1/png-info"
SWITCHES = ("/sdapi/v1/interrupt", "/sdapi/v1/skip", "/sdapi/v1/refresh-loras")

numbers = st.one_of(
    st.integers(-2, 130),
    st.sampled_from([64, 128, 0.5, 7.5, 1.0, -1, 10**400, 2**63, -(2**31), 1e308, 1e-320]),
    st.sampled_from([float("nan"), float("inf"), "30", "7.5", " 64 ", "1e999", "\u0663", "-1"]),
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    numbers,
    texts,
    st.sampled_from(["", "\ud800", "\0", "x" * 9_000, [[[[[]]]]], {}, {"": {}}, [None, {}, 1]]),
    st.lists(st.text(max_size=5), max_size=3),
)
sizes = st.sampled_from(["64x64", "128x128", "auto", "1024x1024", "0x0", "9" * 7 + "x1", "axb"])
names = st.sampled_from(["Euler a", "euler", "k_dpmpp_2m", "DPM++ 2M Karras", "automatic", "none"])
words = st.sampled_from(["fake", "dall-e-3", "gpt-image-1", "demo", "hd", "auto", "webp", "url"])
values = st.one_of(odd, numbers, sizes, names, words, texts)


def known(*fields: str) -> st.SearchStrategy[dict[str, Any]]:
    """Draw an object with some of these fields and others, most of it nearly right."""
    right = {"prompt": texts.filter(str.strip), "steps": st.integers(1, 3)}
    some = st.dictionaries(st.sampled_from(fields), values, max_size=5)
    other = st.dictionaries(st.text(max_size=6), odd, max_size=2)
    sure = st.fixed_dictionaries({}, optional=right)
    return st.tuples(sure, some, other).map(lambda parts: {**parts[2], **parts[1], **parts[0]})


generations = known(*OPENAI_REQUEST.fields)
text_to_image = known(*A1111_REQUEST.fields)
overrides = known(
    *("sd_model_checkpoint", "CLIP_stop_at_last_layers", "samples_format", "sd_vae", "quality")
)


@st.composite
def images(draw: st.DrawFn) -> bytes:
    """Draw the file of an image, damaged or not."""
    spec, media_type = draw(specs), draw(st.sampled_from([*MEDIA_TYPES.values()]))
    whole = bytearray(file(gradient(spec, 1), spec, {"model_version": "a"}, media_type))
    for place in draw(st.lists(st.integers(0, len(whole) - 1), max_size=3)):
        whole[place] = draw(st.integers(0, 255))
    return bytes(whole[: draw(st.one_of(st.none(), st.integers(0, len(whole))))])


encoded = st.tuples(
    st.sampled_from(["", "", "data:image/png;base64,", "data:,", "data:" + "x" * 200, "\n"]),
    st.one_of(images(), images(), st.binary(max_size=40)).map(
        lambda data: base64.b64encode(data).decode()
    ),
    st.sampled_from(["", "", "", "=", "*", "é"]),
).map("".join)
bodies = st.one_of(
    st.tuples(st.just(GENERATIONS), generations),
    st.tuples(st.just(TEXT_TO_IMAGE), text_to_image),
    st.tuples(
        st.just(TEXT_TO_IMAGE),
        st.tuples(text_to_image, overrides).map(
            lambda two: {**two[0], "override_settings": two[1]}
        ),
    ),
    st.tuples(st.just(OPTIONS), overrides),
    st.tuples(st.just(PNG_INFO), st.one_of(encoded.map(lambda text: {"image": text}), overrides)),
    st.tuples(st.sampled_from(SWITCHES), odd),
)
raw = st.one_of(
    st.binary(max_size=30),
    st.sampled_from([b"", b"[" * 9999, b'{"prompt":"a","prompt":"b"}', b'{"a":' * 500, b"null"]),
)


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run one service for all bodies."""
    with serving(tmp_path_factory.mktemp("data"), REQUEST_TIMEOUT_SECONDS="20") as found:
        yield found


def test_they_are_as_they_are_described(tmp_path, fuzz_cases, fuzz_seed):
    """No 5xx, no undescribed answer, each error in the form of its API."""
    # 1,800 cases are the boundaries of the fields; the others are drawn, 40 and more by each.
    drawn = 1 + max(0, fuzz_cases - 1800) // 40
    with serving(tmp_path) as service:
        findings = fuzz(
            service.url,
            seed=fuzz_seed,
            examples=drawn,
            paths=PATHS,
            checks=GENEROUS,
        )
    nothing(findings)
    assert findings.never_succeeded == ["GET /v1/images/{id}/{name}"]
    assert findings.cases >= fuzz_cases


def test_with_keys_they_are_as_they_are_described(tmp_path, fuzz_cases, fuzz_seed):
    """None answers without one where the description asks for it."""
    variables = {"API_KEYS": f"alpha:{KEY}", "AUTH_FAILURES_PER_MINUTE": "0"}
    with serving(tmp_path, **variables) as service:
        findings = fuzz(
            service.url,
            seed=fuzz_seed,
            examples=1 + fuzz_cases // 200,
            paths=PATHS,
            phases=DRAWN,
            auth={"openapi": {"bearer": {"bearer": KEY}}},
            checks={**GENEROUS, "unsupported_method": {"enabled": False}},
        )
    nothing(findings)


def test_whatever_a_body_says_no_answer_is_an_error_of_the_service(
    service: Served, fuzz_cases: int, fuzz_seed: int
) -> None:
    """Each is a good answer or an error of its API; then the service makes an image as before."""
    seen: Counter[tuple[str, int]] = Counter()

    @seed(fuzz_seed)
    @settings(
        max_examples=fuzz_cases,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(bodies, bodies, bodies, st.tuples(st.sampled_from([GENERATIONS]), raw)))
    def check(sent: tuple[str, Any]) -> None:
        path, body = sent
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        answer = requests.post(
            service.url + path,
            data=data,
            headers={"Content-Type": "application/json"},
            timeout=30,
        )
        seen[path, answer.status_code] += 1
        assert answer.status_code < 500, (answer.text, sent)
        assert answer.headers["X-Request-ID"], sent
        if answer.status_code >= 400:
            assert form_of(path).kind(answer.content), sent
            return
        if answer.headers["Content-Type"].startswith("text/event-stream"):
            assert b"event: error" not in answer.content, sent
            return
        found = answer.json()
        for each in found["images"] if path == TEXT_TO_IMAGE else ():
            base64.b64decode(each, validate=True)

    check()
    for path in (GENERATIONS, TEXT_TO_IMAGE, OPTIONS, PNG_INFO):
        assert seen[path, 200], seen
        assert seen[path, 400] or path == OPTIONS, seen
    answer = requests.post(service.url + GENERATIONS, json={"prompt": "a boat"}, timeout=30)
    assert answer.json()["data"][0]["b64_json"]
