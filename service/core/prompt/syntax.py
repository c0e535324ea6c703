"""Choices of a request about the reading of its prompts."""

from enum import StrEnum


class PromptSyntax(StrEnum):
    """What the characters of a prompt mean."""

    PLAIN = "plain"
    """Themselves: the embeddings are those of diffusers."""
    A1111 = "a1111"
    """What AUTOMATIC1111 takes them for."""


class LongPrompts(StrEnum):
    """What becomes of a prompt with more tokens than the text encoder reads at once."""

    CUT = "cut"
    CHUNKS = "chunks"
