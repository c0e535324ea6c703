"""Prompt language: every construct's image is one that diffusers makes of the same embeddings.

The references come from ``tests.support.parity.prompts``, which shares no code with the service:
what a prompt means stands next to it, as texts, weights, chunks and steps.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from service.core.spec import GenerationSpec
from tests.support.parity import comparison
from tests.support.parity.pairs import SENSITIVE
from tests.support.parity.prompts import Case, Meant, PromptPairs, PromptReference, chunk, meant

# diffusers corrects old scheduler files, which some of the models here have on purpose.
pytestmark = pytest.mark.filterwarnings(
    "ignore:The configuration file of this scheduler:FutureWarning"
)

REQUEST = GenerationSpec(
    prompt="a cat",
    width=32,
    height=32,
    steps=6,
    seed=5,
    prompt_syntax="a1111",
    long_prompts="chunks",
)
KINDS = ("sd", "sd21_v", "sdxl")
LONG = pytest.mark.long
LETTERS = "abcdefghij"
"""Each letter is a token of the models here."""


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> PromptPairs:
    """Return a random-weight model of a kind, loaded once."""
    return PromptPairs(tmp_path_factory.mktemp("models"))


def letters(count: int) -> str:
    """Return a text of so many tokens."""
    return " ".join(LETTERS[i % len(LETTERS)] for i in range(count))


def case(prompt: str, *steps: Meant, **fields: Any) -> Case:
    """Return a request for a prompt with what it means."""
    return Case(replace(REQUEST, prompt=prompt, **fields), steps)


CAT, DOG = meant(chunk("a cat")), meant(chunk("a dog"))
BOTH = Meant(parts=((chunk("a cat"), 1.0), (chunk("a dog"), 0.5)), negative=chunk(""))
TWO_CHUNKS = (((letters(75), 1.0),), ((letters(85)[150:], 1.0),))
CASES = {
    "plain": case("a (cat:1.4)", meant(chunk("a (cat:1.4)")), prompt_syntax="plain"),
    "weights": case(
        "a (cat:1.4) [dog] ((b))",
        meant([[("a ", 1), ("cat", 1.4), ("dog", 1 / 1.1), ("b", 1.21)]]),
    ),
    "escapes": case(r"a \(cat\) \[b\] \\ (c\:2)", meant([[(r"a (cat) [b] \ ", 1), ("c:2", 1.1)]])),
    "nested and open": case("a ((cat:1.2) [b", meant([[("a ", 1), ("cat", 1.32), ("b", 1)]])),
    "closed only": case("a) cat]", meant(chunk("a) cat]"))),
    "break": case("a cat BREAK (a dog:0.7)", meant([[("a cat", 1)], [("a dog", 0.7)]])),
    "long": case(letters(85), meant(TWO_CHUNKS)),
    "long plain": case(letters(85), meant(TWO_CHUNKS), prompt_syntax="plain"),
    "comma": case(
        f"{letters(60)}, {letters(40)}", meant([[(f"{letters(60)},", 1)], [(letters(40), 1)]])
    ),
    "long negative": case("a cat", meant(chunk("a cat"), TWO_CHUNKS), negative_prompt=letters(85)),
    "three chunks and two": case(
        f"{letters(75)} BREAK b BREAK (c:1.3)",
        meant([[(letters(75), 1)], [("b", 1)], [("c", 1.3)]], [[("d", 1)], [("e", 0.5)]]),
        negative_prompt="d BREAK (e:0.5)",
    ),
    "cut": case(
        f"(a:1.2) {letters(80)}", meant([[("a", 1.2), (letters(74), 1)]]), long_prompts="cut"
    ),
    "switch": case("a [cat:dog:0.5]", *[CAT] * 3, DOG),
    "switch at a step": case("a [cat:dog:2]", *[CAT] * 2, DOG),
    "begin later": case("a[ dog:2]", *[meant(chunk("a"))] * 2, DOG),
    "end early": case("a[ dog::0.5]", *[DOG] * 3, meant(chunk("a"))),
    "turns": case("a [cat|dog]", *[CAT, DOG] * 3),
    "turns of heun": case("a [cat|dog]", *[CAT, DOG] * 3, sampler="heun"),
    "turns of pndm": case("a [cat|dog]", *[CAT, DOG] * 3, sampler="pndm"),
    "turns unguided": case("a [cat|dog]", *[CAT, DOG] * 3, guidance_scale=1.0),
    "longer later": case(
        f"a [cat:{letters(80)}:2]",
        *[CAT] * 2,
        meant([[(f"a {letters(74)}", 1)], [(letters(80)[148:], 1)]]),
    ),
    "negative in turns": case(
        "a cat",
        *[meant(chunk("a cat"), chunk("b")), meant(chunk("a cat"), [[("c", 1.1)]])] * 3,
        negative_prompt="[b|(c)]",
    ),
    "and": case("a cat AND a dog :0.5", BOTH),
    "and unguided": case("a cat AND a dog:0.5", BOTH, guidance_scale=0.5),
    "and in turns": case(
        "a [cat|dog] AND a dog:0.5 AND (b:1.3) BREAK c :-0.3",
        *[
            Meant(
                parts=(
                    (chunk(first), 1.0),
                    (chunk("a dog"), 0.5),
                    ([[("b", 1.3)], [("c", 1)]], -0.3),
                ),
                negative=chunk("d"),
            )
            for first in ("a cat", "a dog")
        ]
        * 3,
        negative_prompt="d",
        sampler="euler_a",
    ),
    "skipped": case(
        "a (cat:1.4)",
        meant([[("a ", 1), ("cat", 1.4)]], chunk("b")),
        clip_skip=2,
        negative_prompt="b",
    ),
    "skipped plain": case(
        letters(85),
        meant(TWO_CHUNKS, chunk("b")),
        clip_skip=2,
        negative_prompt="b",
        prompt_syntax="plain",
    ),
    "number without and": case("a cat at 1:1.5", meant(chunk("a cat at 1:1.5"))),
    "negative and": case(
        "a cat", meant(chunk("a cat"), chunk("b AND c")), negative_prompt="b AND c"
    ),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("sd", name) for name in CASES),
        # In company they have all of them, below.
        *(pytest.param(KINDS[1 + at % 2], name, marks=LONG) for at, name in enumerate(CASES)),
    ],
)
def test_image_is_that_of_its_meaning(pair: PromptPairs, kind: str, name: str) -> None:
    """A prompt alone gives the image that diffusers makes of the embeddings that it means."""
    found, one = pair(kind), CASES[name]
    theirs = PromptReference(found.reference).images(one.request, one.steps)

    difference = comparison.difference(comparison.alone(found.model, one.request), theirs)

    assert difference.same, difference


@pytest.mark.parametrize("kind", ["sdxl", *(pytest.param(kind, marks=LONG) for kind in KINDS[:2])])
def test_rows_do_not_feel_each_other(pair: PromptPairs, kind: str) -> None:
    """Prompts of all kinds and lengths share calls, and each has the image of its meaning."""
    check(pair, kind, CASES)


def check(pair: PromptPairs, kind: str, cases: Mapping[str, Case]) -> None:
    """Make the images of all cases in one step loop, and compare each with diffusers'."""
    found = pair(kind)
    reference = PromptReference(found.reference)

    endings = comparison.together(
        found.model, {name: one.request for name, one in cases.items()}, batch_limit=12
    )

    sensitive: list[str] = []
    for name, one in cases.items():
        ending = endings[name]
        assert ending.failure is None, (name, ending.failure)
        assert ending.shared, name
        theirs = reference.images(one.request, one.steps)
        together = comparison.difference(ending.images, theirs)
        if not together.same:
            # No fault where diffusers' own image changes with the rounding; as in cases.doubted.
            alone = comparison.difference(comparison.alone(found.model, one.request), theirs)
            rounded = comparison.difference(
                reference.rounded_images(one.request, one.steps), theirs
            )
            assert alone.same, (name, one.request, f"together {together}, alone {alone}")
            assert not rounded.same, (name, one.request, f"together {together}, {rounded}")
            sensitive.append(name)
    assert len(sensitive) <= SENSITIVE * len(cases), sensitive
