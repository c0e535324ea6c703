"""Names of embeddings in texts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.core.prompt.words import divided, may_name_any, named_in, texts
from service.core.spec import GenerationSpec

NAMES = ("bad", "bad-hands", "Easy", "v1.3")


@pytest.mark.parametrize(
    ("text", "bare", "expected"),
    [
        ("a bad cat", False, []),
        ("a <bad> cat", False, ["bad"]),
        ("a bad cat", True, ["bad"]),
        ("a badly drawn cat", True, []),
        ("bad-hands, bad", True, ["bad-hands", "bad"]),
        ("EASY <easy>", True, ["Easy"]),
        ("(easy:1.2)", True, ["Easy"]),
        ("v1x3 v1.3", True, ["v1.3"]),
        ("<no> <", False, []),
    ],
)
def test_names(text, bare, expected):
    """In brackets anywhere, bare as whole words only; the longest name counts."""
    assert named_in(text, NAMES, bare=bare) == expected


@given(st.text(alphabet="abd<>-: ", max_size=40), st.booleans())
def test_no_text_is_lost(text, bare):
    """The parts are the text again, with the names in their places."""
    parts = divided(text, NAMES, bare=bare)
    rest = text
    for words, name in parts:
        found = words or (f"<{name}>" if rest.startswith("<") else name)
        assert rest.lower().startswith(found.lower())
        rest = rest[len(found) :]
    assert rest == ""


def test_texts_of_a_request():
    """Those of every step; a tag of a LoRA is none of them."""
    plain = GenerationSpec(prompt="a [b|c]", negative_prompt="d")
    a1111 = GenerationSpec(
        prompt="a [b|c]<lora:easy:1>", negative_prompt="d", prompt_syntax="a1111"
    )
    assert texts(plain) == {"a [b|c]", "d"}
    assert texts(a1111) == {"a b", "a c", "d"}
    assert may_name_any(texts(a1111), bare=True)
    assert not may_name_any(texts(plain), bare=False)
