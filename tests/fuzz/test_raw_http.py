"""Bytes that no well-behaved client sends, against a running service."""

import json
import socket
from collections import Counter
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from service.errors import KINDS
from tests.fuzz.error_forms import NATIVE, form_of
from tests.fuzz.serving import Served, serving

pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")

BODY = json.dumps({"prompt": "a boat", "steps": 1}).encode()
PATIENCE = {"HEADER_TIMEOUT_SECONDS": "0.2", "BODY_TIMEOUT_SECONDS": "0.2"}
"""Half a request is half of one for ever; the service shall not be asked to wait long."""

FORM = "multipart/form-data; boundary=x"
OTHERS = ("/v1/images/generations", "/v1/images/edits", "/sdapi/v1/txt2img", "/sdapi/v1/options")
"""Routes of other APIs that read a body."""
PATHS = (
    *("/", "/docs", "/docs/start.js", "/docs/swagger-ui.css", "/docs/x", "/health", "/metrics"),
    *("/health/live", "/health/ready", "/openapi.json", "/generate", "/jobs", "/jobs/" + "0" * 32),
    *("/jobs/JOB", "/jobs/JOB/events", "/jobs/JOB/image", "/jobs/%00", "/jobs/..%2f..%2fx/image"),
    *("/jobs?limit=" + "9" * 5000, "/jobs?limit=%D9%A3", "/jobs?state=&cursor=%00", "/nothing"),
    *("/jobs/JOB/image?index=" + "9" * 5000, "/jobs/JOB/image?format=%00", "*", "//", "/%"),
    *(*OTHERS, "/v1/models/a%00/%2e%2e", "/v1/images/JOB/0.png?expires=9&signature=%FF", "/v1/"),
    *("/sdapi/v1/progress?skip_current_image=%00", "/sdapi/v1/nothing", "/queue/status", "/config"),
    *("http://127.0.0.1/health", "/generate?prompt=%FF", "/jobs/JOB/events?preview=%00"),
)
METHODS = ("GET", "POST", "DELETE", "HEAD", "PUT", "OPTIONS", "PATCH", "TRACE", "CONNECT", "X-Y")

legal = st.text(st.characters(codec="utf-8", exclude_categories=["Cc"]), max_size=40).map(
    str.encode
)
bytes_ = st.binary(max_size=20).map(lambda raw: bytes(c | 128 for c in raw))
broken = st.sampled_from([b"\x00", b"a\x00b", b"\x7f", b"a\rb", b"a\n b", b"9" * 9000])
extreme = st.sampled_from([b"", b"0", b"-1", b"9" * 5000, b"*", b"a,b;q=x", b"\xff\xfe", b"(" * 99])
odd = st.one_of(legal, legal, legal, bytes_, bytes_, extreme, extreme, extreme, broken)
"""What is put where a header's value belongs; the parser knows most of it for a value."""

name = st.from_regex(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,20}", fullmatch=True)


def header(name: str, *values: str) -> st.SearchStrategy[tuple[bytes, bytes]]:
    likely = st.sampled_from([value.encode() for value in values])
    return st.tuples(st.just(name.encode()), st.one_of(likely, odd) if values else odd)


headers = st.lists(
    st.one_of(
        header("Accept", "image/png", "image/*;q=0.1, */*;q=0", "image/png;q=nan", "*/*;q=1e999"),
        header("Accept-Encoding", "gzip", "br;q=nan"),
        header("Authorization", "Bearer x", "Basic eDp5", "Bearer"),
        header("Connection", "close", "keep-alive", "upgrade"),
        header("Content-Encoding", "gzip", "deflate", "br", "identity", "gzip, gzip"),
        header(
            "Content-Type", "application/json", "application/json; charset=utf-16", "text/x", FORM
        ),
        header("Cookie", "a=b", "=;=;"),
        header("Expect", "100-continue", "200-ok"),
        header("Forwarded", "for=_x"),
        header("Host", "localhost", "evil.example", "[::1", "127.0.0.1:99999999"),
        header("Idempotency-Key", "a", "b", "é", "k" * 256),
        header("If-None-Match", "*", '"x"', 'W/"'),
        header("If-Modified-Since", "Thu, 01 Jan 1970 00:00:00 GMT", "yesterday"),
        header("If-Range", '"x"', "Thu, 01 Jan 1970 00:00:00 GMT"),
        header("Last-Event-ID", "x-1", "-", "0-" + "9" * 5000),
        header("Origin", "null", "https://evil.example"),
        header("Prefer", "respond-async", "respond-async;wait=x", ",,;="),
        header(
            "Range", "bytes=0-1", "bytes=-", "bytes=5-1", "bytes=0-0,1-1", "bytes=" + "9" * 5000
        ),
        header("Transfer-Encoding", "chunked", "gzip, chunked", "identity"),
        header("Upgrade", "websocket", "h2c"),
        header("X-API-Key", "x"),
        header("X-Forwarded-For", "127.0.0.1", "::1, x, [", "1" * 999),
        header("X-Request-ID", "a", "a" * 129, "a b"),
        header("X-Request-Timeout", "5", "1e-9", "nan", "inf", "-0", "1_0", "\u0663"),
        header("traceparent", f"00-{'1' * 32}-{'1' * 16}-01", "00-0-0-0", f"ff-{'g' * 32}-x-y"),
        header("tracestate", "a=b", "=" * 600),
        st.tuples(name, odd),
    ),
    max_size=4,
)
bodies = st.one_of(
    st.just(BODY),
    st.just(BODY),
    st.just(b""),
    st.binary(max_size=60),
    st.sampled_from(
        [b"[" * 9999, b"\xef\xbb\xbf" + BODY, b'{"prompt":"\\ud800"}', b'{"prompt":9e999}']
    ),
    st.text(max_size=20).map(lambda text: json.dumps({"prompt": text, "steps": 1}).encode()),
    st.just(BODY),
)
chunks = st.sampled_from(
    (
        *(b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"zz\r\n", b"-1\r\n\r\n", b"5\r\nhell"),
        *(b"5;\x00\r\nhello\r\n", b"f" * 40 + b"\r\n", b"2\r\n{}\r\n0\r\nx: y\r\n\r\n"),
        *(b"2\r\n{}\n\n", b"\r\n"),
    )
)


@dataclass(frozen=True)
class Sent:
    """One request, as bytes."""

    method: str
    path: str
    content: bytes


@st.composite
def requests(draw, job: str) -> Sent:
    """Draw a request: most of it right, some of it not."""
    asked = st.tuples(st.sampled_from(METHODS), st.sampled_from(PATHS))
    read = st.tuples(st.just("GET"), st.sampled_from(PATHS))
    made = st.tuples(st.just("POST"), st.sampled_from(("/generate", "/jobs", *OTHERS)))
    method, path = draw(st.one_of(made, read, made, asked, made))
    path = path.replace("JOB", job)
    lines = [f"{method} {path} HTTP/1.1".encode()]
    if draw(st.integers(0, 29)) == 29:
        lines = [draw(odd)]
    given_headers = draw(headers)
    if b"Host" not in dict(given_headers):
        given_headers.append((b"Host", b"localhost"))
    body = draw(bodies)
    match draw(st.integers(0, 11)):
        case 11:
            given_headers.append((b"Transfer-Encoding", b"chunked"))
            body = draw(chunks)
        case 10:
            given_headers.append((b"Content-Length", draw(odd)))
        case 9:
            given_headers.append((b"Content-Length", b"%d" % (len(body) + 5)))
        case _:
            given_headers.append((b"Content-Length", b"%d" % len(body)))
    if method == "POST" and draw(st.integers(0, 5)) < 5:
        given_headers.insert(0, (b"Content-Type", b"application/json"))
    lines += [name + b": " + value for name, value in given_headers]
    return Sent(method, path, b"\r\n".join(lines) + b"\r\n\r\n" + body)


def ask(port: int, sent: Sent) -> tuple[HTTPResponse, bytes] | None:
    """Send it, and return the first answer; None where the connection was closed without one."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as line:
        try:
            line.sendall(sent.content)
            answer = HTTPResponse(line, method=sent.method)
            answer.begin()
            return answer, answer.read()
        except (ConnectionError, HTTPException):
            return None


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    """Run one service for all of them."""
    with serving(tmp_path_factory.mktemp("data"), **PATIENCE) as found:
        yield found


@pytest.fixture(scope="module")
def job(service: Served) -> str:
    """Have a job with an image."""
    head = b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    sent = head + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
    found = ask(service.port, Sent("POST", "/jobs", sent))
    assert found is not None
    return str(json.loads(found[1])["id"])


def test_whatever_is_sent_no_answer_is_an_error_of_the_service(service, job, fuzz_cases, fuzz_seed):
    """Each is a good answer or a problem that says what is wrong; then the service is well."""
    statuses: Counter[int | None] = Counter()
    kinds: Counter[tuple[str, str]] = Counter()

    @seed(fuzz_seed)
    @settings(
        max_examples=fuzz_cases // 2,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(requests(job))
    def check(sent: Sent) -> None:
        found = ask(service.port, sent)
        statuses[found and found[0].status] += 1
        if found is None:
            return
        answer, content = found
        assert answer.status < 500, (answer.status, content, sent)
        assert answer.headers["X-Request-ID"], sent
        if answer.status < 400:
            return
        form = NATIVE
        if answer.headers["Content-Type"].partition(";")[0] != form.media_type:
            form = form_of(sent.path)
            assert form is not NATIVE, (content, sent)
        if sent.method != "HEAD":
            kind = form.kind(content)
            kinds[form.name, form.media_type] += 1
            if form is NATIVE:
                assert KINDS[kind].status == json.loads(content)["status"] == answer.status

    check()
    assert len(kinds) == 3, kinds
    assert {200, 202, 400, 404, 405, 408, 415, 417} <= statuses.keys()  # It reaches deep.
    found = ask(
        service.port, Sent("GET", "", b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\n\r\n")
    )
    assert found is not None
    assert found[0].status == 200
