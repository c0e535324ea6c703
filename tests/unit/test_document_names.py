"""Whatever the documents name is there: settings, series, alerts, commands, files, decisions."""

import ast
import json
import re
import shlex
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from service import errors
from service.__main__ import parser
from service.cli import exits
from service.config.setting import environment_name
from service.config.table import Config
from service.telemetry.metrics import Metrics
from tests.support.documents import DOCUMENTS, LINKED, ROOT, anchors, code, links

README = ROOT / "README.md"
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
SETTINGS = {environment_name(row) for row in fields(Config)}
OF_OTHERS = re.compile(
    r"(?:HF|OTEL)_[A-Z_]+|HTTPS?_PROXY|NO_GPU_USED|KEY|NAME"
    # Of clients: Open WebUI, LibreChat, aiyabot.
    r"|ENABLE_IMAGE_(?:EDIT|GENERATION)|IMAGE_EDIT_(?:ENGINE|MODEL)"
    r"|IMAGES_EDIT_OPENAI_API_(?:BASE_URL|KEY)|IMAGE_GENERATION_(?:ENGINE|MODEL)|IMAGE_SIZE|IMAGE_STEPS"
    r"|IMAGES_OPENAI_API_(?:BASE_URL|KEY)|AUTOMATIC1111_(?:BASE_URL|API_AUTH)"
    r"|IMAGE_GEN_OAI_(?:API_KEY|BASEURL)|SD_WEBUI_URL|URL|APIUSER|APIPASS|API_AUTH|BASE_URL"
    r"|RAY_(?:AUTH_MODE|AUTH_TOKEN(?:_PATH)?|GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S|REDIS_ADDRESS)"
)
"""Variables of libraries, the event that is written in capitals, and words of examples."""

DEFINITIONS = Metrics().definitions
SERIES = {row.name for row in DEFINITIONS} | {
    f"{row.name}_{part}"
    for row in DEFINITIONS
    if row.kind == "histogram"
    for part in ("bucket", "sum", "count")
}
RULES = yaml.safe_load((ROOT / "alerts" / "rules.yml").read_text(encoding="utf-8"))["groups"]
ALERTS = {rule["alert"] for group in RULES for rule in group["rules"] if "alert" in rule}
EVENTS = {
    event
    for path in (ROOT / "service").rglob("*.py")
    for event in re.findall(r"log\.\w+\(\s*\"(\w+)\"", path.read_text(encoding="utf-8"))
}
PROGRAMS_OF_DOCKER = {"build", "compose", "run"}
SERVICES_STAND = {"up": slice(None), "exec": slice(1), "logs": slice(-1, None)}
"""Where behind a word of Docker Compose."""
FOLDERS = r"\.ci|alerts|dashboards|deploy|docs|monitoring|scripts|service|tests"


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)


def variables() -> set[str]:
    """Return what may be set besides settings: in compose files, the Makefile, the Dockerfile."""
    files = [*ROOT.glob("docker-compose*.yml"), ROOT / "Dockerfile", ROOT / "Makefile"]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    found = re.findall(r"\$\{([A-Z_]+)|^ARG ([A-Z_]+)|^([A-Z_]+) \?=", text, re.MULTILINE)
    return {name for names in found for name in names if name}


@every_document
def test_settings_that_are_named_exist(document):
    """In backticks and in blocks of code, whether those are run or not."""
    text = "\n".join(code(document))
    named = set(re.findall(r"(?<![\w$.{-])[A-Z]+(?:_[A-Z]+)+\b", text))
    named |= set(re.findall(r"(?<![\w$.{-])([A-Z][A-Z_]*)=", text))
    known = SETTINGS | variables()
    assert sorted(name for name in named - known if not OF_OTHERS.fullmatch(name)) == []


def spelt_out(pattern: str) -> list[str]:
    """Return the words that a pattern with groups of alternatives stands for."""
    group = re.search(r"\(([^()]*)\)", pattern)
    if group is None:
        return [pattern]
    before, after = pattern[: group.start()], pattern[group.end() :]
    return [word for one in group[1].split("|") for word in spelt_out(f"{before}{one}{after}")]


@every_document
def test_series_that_are_named_exist(document):
    """By their whole name; in a pattern for grep, or before a star, by how they begin.

    Two options of AUTOMATIC1111 and a resource of Ray begin as series do.
    """
    for line in code(document):
        for found in re.findall(
            r"(?<![:\w])sd_(?!(?:api|engine|model_checkpoint|vae)\b)(?:\w+|\((?:[^()]|\([^()]*\))*\))\w*\*?",
            line,
        ):
            shown = "grep" in line or found.endswith(("*", "_"))
            for word in spelt_out(found):
                begins = word.rstrip("*")
                assert any(name.startswith(begins) if shown else name == word for name in SERIES), (
                    word
                )


@every_document
def test_alerts_and_log_events_that_are_named_exist(document):
    """Of the log's events those that stand right behind the word."""
    text = document.read_text(encoding="utf-8")
    assert set(re.findall(r"\bSD[A-Z][a-z]\w+", text)) <= ALERTS
    named = set(re.findall(r"\blogs?\b[^.|\n`]{0,20}`(\w+)`", text))
    assert named <= EVENTS


@every_document
def test_targets_of_make_that_are_named_exist(document):
    """With the words that they may be given."""
    targets = re.findall(r"^([a-z-]+):.*## ", MAKEFILE, re.MULTILINE)
    for line in code(document):
        for words in re.findall(r"(?:^|\s|')make((?: [\w=.-]+)+)", line):
            named = [word.strip(".") for word in words.split() if "=" not in word]
            assert {word for word in named if word[0] != "-"} <= set(targets), line


@every_document
def test_files_and_modules_that_are_named_exist(document):
    """Whatever begins like a folder of the project, and whatever Python is to run of it."""
    text = document.read_text(encoding="utf-8")
    for found in re.findall(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./*-]*\w", text):
        if found != "service/sd-api":  # What Kubernetes calls it.
            assert list(ROOT.glob(found)), found
    for module in re.findall(
        r"python3? -m ((?:service|scripts|dashboards|alerts|tests)[\w.]*)", text
    ):
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module
    for path, test in re.findall(r"`(tests/[\w./]+\.py)::(\w+)`", text):
        assert f"def {test}(" in (ROOT / path).read_text(encoding="utf-8"), test


@every_document
def test_commands_of_sd_api_that_are_shown_are_taken(document):
    """By the program's own reader of arguments."""
    for line in code(document):
        if line.startswith(("sudo", "kubectl", "journalctl", "docker compose logs")):
            continue
        inside = re.sub(r"docker compose exec \S+ ", "", line)
        for call in re.findall(r"(?:^|[\s=])(?:\.venv/bin/)?sd-api ([a-z-][^|>&#;]*)", inside):
            assert taken(shlex.split(call.partition("  ")[0])), line


def taken(words: list[str]) -> bool:
    """Return whether the program knows what to do with its arguments."""
    try:
        parser().parse_args(words)
    except SystemExit as ended:
        return ended.code == 0  # Of --help.
    return True


@every_document
def test_commands_of_docker_are_such(document):
    """Nothing here runs them: the words, files and services are held against what there is."""
    composed = [yaml_of(path) for path in ROOT.glob("docker-compose*.yml")]
    services = {name for file in composed for name in file["services"]}
    for line in code(document):
        for call in re.findall(r"(?:^|\s)docker ((?:[a-z]).*)", line.partition("  #")[0]):
            words = call.partition(" (")[0].split()
            assert words[0] in PROGRAMS_OF_DOCKER, line
            for file in re.findall(r"-f (\S+)", call):
                assert (ROOT / file).is_file(), line
            for verb, where in SERVICES_STAND.items():
                if verb in words:
                    named = words[words.index(verb) + 1 :][where]
                    assert {word for word in named if word[0] != "-"} <= services, line


def yaml_of(path: Path) -> dict[str, dict[str, object]]:
    """Return a compose file; its own tags stand for what is there without them."""
    text = re.sub(r"!(?:reset|override)\b", "", path.read_text(encoding="utf-8"))
    found: dict[str, dict[str, object]] = yaml.safe_load(text)
    return found


@pytest.mark.parametrize("document", LINKED, ids=name_of)
def test_every_link_leads_somewhere(document):
    """To a file that is there, and to a heading in it."""
    broken = []
    for link in links(document):
        path, _, anchor = link.partition("#")
        target = (document.parent / path).resolve() if path else document
        if not target.exists() or (
            anchor and target.suffix == ".md" and anchor not in anchors(target)
        ):
            broken.append(link)
    assert broken == []


def test_the_readme_leads_to_every_document():
    """None has to be found by chance."""
    named = {(ROOT / link.partition("#")[0]).resolve() for link in links(README)}
    there = {*(ROOT / "docs").glob("*.md"), *ROOT.glob("*.md"), ROOT / "docs" / "decisions"}
    assert sorted(name_of(path) for path in there - named - {README}) == []


def test_decisions_are_numbered_without_a_gap():
    """In the name of the file and in its heading."""
    files = sorted((ROOT / "docs" / "decisions").iterdir())
    numbers = [f"{number:03}" for number in range(1, len(files) + 1)]
    assert [path.name[:3] for path in files] == numbers
    for number, path in zip(numbers, files, strict=True):
        assert path.read_text(encoding="utf-8").startswith(f"# {number}: "), path.name


def test_the_exit_code_of_a_fault_is_one_that_its_test_asks_for():
    """docs/STARTUP.md: by its number, by its name, or by an error that ends with it."""
    document = (ROOT / "docs" / "STARTUP.md").read_text(encoding="utf-8")
    rows = re.findall(r"\| (\d+)[^|]* \| `(tests/[\w/.]+)::(\w+)` \|$", document, re.MULTILINE)
    assert len(rows) > 20
    codes = {kind.__name__: int(code) for kind, code in exits.CODES.items()}
    codes |= {member.name: int(member) for member in exits.Exit}
    codes |= {str(int(member)): int(member) for member in exits.Exit}
    for number, path, test in rows:
        asked = {codes[word] for word in words_of(ROOT / path, test) if word in codes}
        assert int(number) in asked, test


def words_of(path: Path, test: str) -> set[str]:
    """Return the words of a test and of what it is parametrized with, its name left out."""
    text = path.read_text(encoding="utf-8")
    (found,) = [
        node
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == test
    ]
    parts = [found, *found.decorator_list]
    return set(re.findall(r"\w+", "\n".join(ast.get_source_segment(text, x) or "" for x in parts)))


def test_the_errors_of_the_clients_are_those_of_the_service():
    """Each code of docs/CLIENTS.md with its status."""
    clients = (ROOT / "docs" / "CLIENTS.md").read_text(encoding="utf-8")
    table = clients.partition("## Errors")[2]
    rows = re.findall(r"^\| (\d+) \| ([^|]+) \|", table, re.MULTILINE)
    assert len(rows) >= 5
    for status, codes in rows:
        for name in re.findall(r"`(\w+)`", codes):
            kind = errors.error_class(name)
            assert (kind.code, str(kind.status)) == (name, status)


def test_what_the_demo_model_can_is_what_was_measured():
    """The README's four shares are those of docs/demo-evaluation.json, in its order."""
    path = ROOT / "docs" / "demo-evaluation.json"
    measured = json.loads(path.read_text(encoding="utf-8"))["attributes"]
    *first, last = (f"{100 * row['generated']:.1f}" for row in measured.values())
    text = " ".join(README.read_text(encoding="utf-8").split())
    assert f"{', '.join(first)} and {last} %" in text


def test_the_ways_of_a_request_and_of_a_job_name_what_is_there():
    """Files by their path below ``service/``, each with what is defined in it."""
    text = (ROOT / "docs" / "ARCHITECTURE.md").read_text(encoding="utf-8")
    ways = text.partition("\n1. ")[2].partition("\n## Routes")[0]
    missing, source, folder = [], "", Path()
    for name in re.findall(r"`([a-zA-Z_/]+(?:\.py)?)`", ways):
        if name.endswith(".py"):
            path = ROOT / "service" / (name if "/" in name else folder / name)
            folder, source = path.parent.relative_to(ROOT / "service"), path.read_text("utf-8")
        elif not re.search(rf"(?:def|class) {name}\b|^ *{name}\b.* = ", source, re.MULTILINE):
            missing.append(name)
    assert set(missing) <= SETTINGS
