"""Exit codes: one for each kind of fault, all explained."""

import re
from pathlib import Path

from service.cli import exits
from service.cli.exits import Exit
from service.errors import ModelError, ValidationFailed

ROOT = Path(__file__).parents[3]


def test_every_error_has_a_code_of_its_own_kind():
    """The most special class that the table has counts; what is not in it is a plain failure."""
    errors = [kind({}) if kind is ValidationFailed else kind() for kind in exits.CODES]
    assert {error.code: int(exits.code(error)) for error in errors} == {
        kind.code: int(number) for kind, number in exits.CODES.items()
    }
    assert exits.after_load(ModelError.code) is None
    assert exits.after_load("model_unsuitable") == Exit.MODEL_DAMAGED
    assert exits.after_load("gpu_busy") == Exit.BUSY
    assert exits.after_load("from_the_future") == Exit.FAILED


def test_every_code_is_explained():
    """In --help and in docs/STARTUP.md."""
    document = (ROOT / "docs" / "STARTUP.md").read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| (\d+) \| ([^|]+) \|", document, flags=re.MULTILINE))
    assert {str(int(number)): text for number, text in exits.MEANINGS.items()} == table
    assert set(exits.MEANINGS) == set(Exit)


def test_every_fault_of_the_document_names_a_test_that_exists():
    """And a code that the program has."""
    document = (ROOT / "docs" / "STARTUP.md").read_text(encoding="utf-8")
    block = document.partition("<!-- faults -->")[2].partition("<!-- /faults -->")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in block.splitlines()[3:]]
    assert len(rows) > 20
    for _fault, _line, number, where in rows:
        path, _, name = where.strip("`").partition("::")
        assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), flags=re.MULTILINE)
        first = re.match(r"\d+", number)
        assert first is None or int(first[0]) in set(Exit)
