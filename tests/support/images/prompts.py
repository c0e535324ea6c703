"""Prompts that readers of an image's text could take for something else."""

from hypothesis import strategies as st

from service.core.spec import GenerationSpec

WORDS = (
    *("a boat", "Negative prompt:", "Negative prompt: fog", "Negative  prompt: x", "Negative"),
    *("Steps: 20, Sampler: Euler, CFG scale: 7, Seed: 5", "Steps:", "Steps: 9", "prompt: a"),
    *("Template: x", "Negative Template: y", "Size: 1x1", "Model: m", "Seed: 3", "Version: 1"),
    *("Hashes: {}", ', Hashes: {"model": "x"}', "Civitai resources: [{}]", "Resources: a"),
    *("<lora:ink:0.8>", "<lora:ink>", "<lora:ink:-0.5>", "<lora:big ink:1>", "<lora:a:1:0.5>"),
    *("(red:1.3)", "((x))", "[a:b:0.5]", "BREAK", "AND", "{a|b}", "{", "}", '{"a": 1}'),
    *("\n", "\n\n", "\r\n", "\t", " ", "  ", ",", ":", '"', "\\", "'", '"a, b"', '\\"', "£", "ß"),
    *("\U0001f6a2", "船", "\u2028", "\x85", "é", "Ünter", "x: y, z: w, v: u", "100%", "<", ">"),
)
"""Pieces that some reader gives a meaning to."""

texts = st.lists(
    st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(WORDS),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12),
    ),
    max_size=8,
).flatmap(lambda words: st.sampled_from(("", " ", "\n")).map(lambda between: between.join(words)))
"""What a user may type, nothing at all included."""

requests = st.builds(
    GenerationSpec,
    prompt=texts,
    negative_prompt=texts,
    width=st.just(64),
    height=st.just(128),
    seed=st.integers(0, 2**32 - 1),
    steps=st.integers(1, 50),
    guidance_scale=st.floats(0, 30),
    clip_skip=st.integers(1, 3),
    sampler=st.sampled_from(("dpmpp_2m_karras", "euler_a", "ddim")),
)


def words(text: str) -> list[str]:
    """Return what a text encoder reads of a text: runs of white space are one."""
    return text.split()
