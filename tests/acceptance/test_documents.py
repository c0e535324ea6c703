"""What the documents say is so: their code runs, their names exist, their links lead somewhere."""

import asyncio
import configparser
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import requests
import yaml

from scripts import api_tables
from service.config.setting import environment_name
from service.config.table import Config
from service.telemetry.metrics import Metrics
from tests.support.documents import DOCUMENTS, HARMLESS, NEEDS, ROOT, SHELL, Block, blocks, commands
from tests.support.job_service import BODY, ask, events, service
from tests.support.service_process import running_service
from tests.support.simulation.fake_engine import FakeEngine

ADDRESS = "http://127.0.0.1:8000"
README = ROOT / "README.md"
TEXT = {document: document.read_text(encoding="utf-8") for document in DOCUMENTS}
EVERYTHING = "\n".join(TEXT.values())
BLOCKS = [block for document in DOCUMENTS for block in blocks(document)]

ELSEWHERE = {
    "README.md": {
        "cabin.png": "tests/acceptance/test_readme.py",
        # Of the others that call make only the words are checked: tests/unit/test_document_names.py
        "make serve\n": "tests/acceptance/test_readme.py",
    },
    "docs/CLIENTS.md": {
        "robot.png": "tests/acceptance/test_readme.py",
        "lake.png": "tests/acceptance/test_readme.py",
        "sunset.png": "tests/acceptance/test_readme.py",
    },
    # The same command, with a setting more.
    "docs/DEPLOYMENT.md": {"--vary ATTENTION_SLICING": "tests/test_integration_optimize.py"},
}
"""Blocks that another test carries out, by a word of theirs, and which."""


def elsewhere(block: Block) -> str:
    """Return the test that carries out a block; empty for this one."""
    known = ELSEWHERE.get(str(block.document.relative_to(ROOT)), {})
    return next((test for word, test in known.items() if word in block.text), "")


def carried_out(*languages: str) -> list[Block]:
    """Return the blocks that are run here."""
    return [
        block
        for block in BLOCKS
        if block.language in languages and not block.needs and not elsewhere(block)
    ]


def demand(program: str) -> str:
    """Return a program's path, or skip."""
    if (path := shutil.which(program)) is None:
        pytest.skip(f"{program} is not installed; the documents show it to those who have it")
    return path


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """Return a folder that is like the project's, and that blocks may write into.

    It is a copy, with no Makefile: nothing that a block does reaches the project or its
    installation, and ``.venv`` holds two programs and no place to install anything.
    """
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("scripts", "deploy", "docs", "dashboards", "alerts"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    for name in ("service", "tests"):
        (folder / name).symlink_to(ROOT / name)
    programs = folder / ".venv" / "bin"
    programs.mkdir(parents=True)
    for name, call in (("python", ""), ("sd-api", " -m service")):
        (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}"{call} "$@"\n')
        (programs / name).chmod(0o700)
    return folder


@pytest.fixture(scope="module")
def live(checkout):
    """Start a service with the demo model that keeps its jobs in ``data``, as by default."""
    with running_service(DATA_DIR=checkout / "data", TORCH_THREADS=2) as started:
        yield started


def run(command: list[str], folder: Path, url: str) -> str:
    """Run a program as one would in the project's folder; return what it said, or fail with it."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(folder),
        "PIP_DRY_RUN": "1",
        "API_PORT": url.rpartition(":")[2],
        "HF_HUB_OFFLINE": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
    }
    done = subprocess.run(
        command,
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def at(block: Block, url: str) -> str:
    """Return a block with the address of the service that is there."""
    return block.text.replace(ADDRESS, url)


@pytest.mark.parametrize("block", carried_out(*SHELL), ids=str)
def test_shell_blocks_run(block, live, checkout):
    """Every command ends well, in the order of its document."""
    for program in ("bash", "curl", "jq", "base64"):
        if program in block.text:
            demand(program)
    run(["bash", "-euo", "pipefail", "-c", at(block, live.url)], checkout, live.url)


@pytest.mark.parametrize("block", carried_out("python"), ids=str)
def test_python_blocks_run(block, live, checkout):
    """They need no line more than is shown."""
    run([sys.executable, "-W", "error", "-c", at(block, live.url)], checkout, live.url)


@pytest.mark.parametrize("block", carried_out("js"), ids=str)
def test_javascript_blocks_run(block, live, checkout):
    """In Node, as they stand, in a file of their own."""
    program = checkout / "shown.mjs"
    program.write_text(at(block, live.url), encoding="utf-8")
    run([demand("node"), str(program)], checkout, live.url)


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language in SHELL and b.needs], ids=str)
def test_shell_blocks_that_need_more_are_well_formed(block):
    """What needs root, a GPU or Docker is at least no typing error."""
    said = subprocess.run(
        [demand("bash"), "-n"], input=block.text, capture_output=True, text=True, check=False
    )
    assert (said.returncode, said.stderr) == (0, "")


@pytest.mark.parametrize(
    "block", [b for b in BLOCKS if b.language in ("json", "yaml", "ini")], ids=str
)
def test_blocks_of_data_can_be_read(block):
    """Dots may stand for a value or a field that is left out, and for nothing else."""
    match block.language:
        case "json":
            json.loads(block.text)
        case "yaml":
            assert list(yaml.safe_load_all(block.text))
        case _:
            parser = configparser.ConfigParser(strict=False)
            parser.optionxform = str  # type: ignore[assignment,method-assign]
            begins = block.text.lstrip().startswith("[")
            parser.read_string(block.text if begins else f"[shown]\n{block.text}")


def test_every_block_is_of_a_kind_that_is_checked():
    """A language that no test knows would be checked by nobody."""
    known = {*SHELL, "python", "js", "json", "yaml", "ini", "mermaid", "nginx", "text", ""}
    assert {str(block): block.language for block in BLOCKS if block.language not in known} == {}


def test_what_is_not_run_says_why():
    """By its first line, or by a command that everybody knows to need more than a shell."""
    silent = {
        str(block): block.needs
        for block in BLOCKS
        if block.language in SHELL
        and block.needs
        and not NEEDS.search(block.text)
        and not set(block.needs.split(", ")) & KNOWN_TO_NEED_MORE
    }
    assert silent == {}


def test_every_program_that_is_called_is_known():
    """One that is misspelt in a block that is not run would be noticed by readers only."""
    known = HARMLESS | KNOWN_TO_NEED_MORE | BEHIND_SUDO | {"nvidia-smi", "set", "."}
    called = {
        str(block): commands(block.text.replace("sudo ", "")) - known
        for block in BLOCKS
        if block.language in SHELL
    }
    assert {block: names for block, names in called.items() if names} == {}


KNOWN_TO_NEED_MORE = {
    *("docker", "journalctl", "kubectl", "make", "pip", "pipx", "python3", "sd-api", "sudo", "uv"),
    "uvx",
}
BEHIND_SUDO = {"chown", "git", "install", "mv", "systemctl", "useradd"}


@pytest.mark.parametrize(
    ("text", "needs"),
    [
        ("curl -s http://127.0.0.1:8000/health | jq '.a | .b'", ""),
        ('id=$(curl -s x | jq -r .id)\ntest "$id" = 1', ""),
        ("OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318 make serve", "make"),
        (".venv/bin/python -m pip install x", "pip"),
        ("echo a && sudo rm -r /", "sudo"),
        ("x=$(docker ps)", "docker"),
        ("# Needs a GPU.\nnvidia-smi", "a GPU"),
    ],
)
def test_what_installs_or_needs_more_is_never_run(text, needs):
    """A program that is not known to be harmless is a reason to read a block only."""
    assert Block(document=README, line=1, language="sh", text=text).needs == needs


def test_what_others_carry_out_is_there():
    """No word stands for a block that is gone, no test for one that does not read the document."""
    for name, known in ELSEWHERE.items():
        for word, test in known.items():
            assert any(word in block.text for block in blocks(ROOT / name)), word
            assert (ROOT / test).is_file()


def test_answers_that_are_shown_have_the_fields_of_real_ones():
    """The JSON in docs/API.md holds no field that its schema does not have."""
    schemas = api_tables.description()["components"]["schemas"]
    shown = [json.loads(b.text) for b in blocks(ROOT / "docs" / "API.md") if b.language == "json"]
    assert shown
    for answer in shown:
        assert any(set(answer) <= set(schema["properties"]) for schema in schemas.values()), answer


def test_the_tables_of_the_api_are_current():
    """`python -m scripts.api_tables` has been run since the API last changed."""
    document = TEXT[ROOT / "docs" / "API.md"]
    assert api_tables.current(document) == document


def test_every_error_code_says_what_to_do():
    """Each code of the service stands in docs/API.md once, with a cure."""
    cures = dict(api_tables.CURE.findall(TEXT[ROOT / "docs" / "API.md"]))
    assert {code: cure for code, cure in cures.items() if not cure.strip()} == {}
    assert {kind.code for kind in api_tables.kinds()} <= set(cures)


def test_every_code_of_a_refusal_has_its_section():
    """docs/TROUBLESHOOTING.md knows 408, 429 and each 503 by its code."""
    document = TEXT[ROOT / "docs" / "TROUBLESHOOTING.md"]
    answered = api_tables.answered(api_tables.description())
    told = {kind.code for kind in api_tables.kinds() if kind.status in {408, 410, 429, 503}}
    assert sorted(code for code in told & answered if f"`{code}`" not in document) == []


def test_every_route_is_documented():
    """With its method, as the service describes it."""
    document = TEXT[ROOT / "docs" / "API.md"]
    for path, method, _ in api_tables.operations(api_tables.description()):
        assert f"| `{method.upper()} {path}` |" in document


def test_every_setting_is_documented():
    """In a table, by the name of its environment variable."""
    missing = [
        name
        for row in fields(Config)
        if f"| `{(name := environment_name(row))}` |" not in EVERYTHING
    ]
    assert missing == []


def test_every_metric_is_documented():
    """And so are all alerts."""
    assert [m.name for m in Metrics().definitions if f"`{m.name}`" not in EVERYTHING] == []
    rules = yaml.safe_load((ROOT / "alerts" / "rules.yml").read_text(encoding="utf-8"))["groups"]
    named = [rule["alert"] for group in rules for rule in group["rules"] if "alert" in rule]
    assert named
    assert [alert for alert in named if alert not in EVERYTHING] == []


async def test_the_events_that_are_described_are_those_that_come(live, tmp_path):
    """Every event and every field of its data stands in the table of docs/API.md, and no other."""
    table = TEXT[ROOT / "docs" / "API.md"].partition("## Events")[2].partition("## Webhooks")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \| ([^|]*) \|", table, re.MULTILINE))
    order = {"prompt": "a boat", "width": 256, "height": 256, "steps": 50}
    told = await asyncio.to_thread(watched, live.url, order)
    engine = FakeEngine(step_seconds=None)
    async with service(tmp_path / "standing", engine, max_concurrent_requests=1) as client:
        running = await ask(client, "POST", "/jobs", 202, json=BODY)
        waiting = await ask(client, "POST", "/jobs", 202, json=BODY | {"timeout_seconds": 0.2})
        told += await events(client, waiting["id"])
        await ask(client, "DELETE", f"/jobs/{running['id']}", 200)
        told += await events(client, running["id"])
    seen: dict[str, set[str]] = {}
    for event in told:
        seen.setdefault(event["event"], set()).update(json.loads(event["data"]))
    assert set(seen) == set(rows)
    for kind, names in seen.items():
        assert names <= set(re.findall(r"`(\w+)`", rows[kind])), kind


def watched(url: str, order: dict[str, object]) -> list[dict[str, str]]:
    """Have a job made and return all its events, previews among them."""
    job = requests.post(f"{url}/jobs", json=order, timeout=60).json()
    answer = requests.get(f"{url}{job['links']['events']}?preview=true", timeout=120)
    parts = [part for part in answer.text.strip().split("\n\n") if not part.startswith(":")]
    return [dict(line.split(": ", 1) for line in part.splitlines()) for part in parts]


async def test_a_backup_can_be_restored(live, checkout, tmp_path):
    """What docs/DEPLOYMENT.md copies is enough to fetch a job and its image elsewhere."""
    (block,) = [b for b in blocks(ROOT / "docs" / "DEPLOYMENT.md") if "VACUUM INTO" in b.text]
    shutil.rmtree(checkout / "backup", ignore_errors=True)
    order = {"prompt": "a boat", "width": 256, "height": 256, "steps": 1}
    made = await asyncio.to_thread(finished, live.url, order)
    await asyncio.to_thread(run, ["bash", "-euc", block.text], checkout, live.url)
    shutil.copytree(checkout / "backup", tmp_path / "data")
    async with service(tmp_path / "data") as client:
        assert (await ask(client, "GET", f"/jobs/{made}", 200))["state"] == "succeeded"
        async with client.get(f"/jobs/{made}/image") as answer:
            assert (answer.status, (await answer.read())[:4]) == (200, b"\x89PNG")


def finished(url: str, order: dict[str, object]) -> str:
    """Have a job made and return its id."""
    job = requests.post(f"{url}/jobs", json=order, timeout=60).json()
    requests.get(url + job["links"]["events"], timeout=60).raise_for_status()
    return str(job["id"])
