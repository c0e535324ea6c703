"""Embeddings (textual inversion) in prompts: each row's image as diffusers draws it.

The references load the same vectors with ``load_textual_inversion``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from service.core.spec import GenerationSpec
from service.diffusion.adapters.store import store_of
from service.diffusion.loop.step_loop import StepLoop
from service.models.adapters.catalog import AdapterCatalog
from tests.support.models import embedding_files
from tests.support.parity import comparison
from tests.support.parity.comparison import Ending
from tests.support.parity.pairs import Pair
from tests.support.parity.prompts import PromptPairs, PromptReference, meant
from tests.support.parity.references import Reference

BASE = GenerationSpec(prompt="a cat", width=32, height=32, steps=4, seed=5, sampler="euler")
A1111 = replace(BASE, prompt_syntax="a1111", long_prompts="chunks")
TRIO = "<trio> <trio>_1 <trio>_2"
"""What diffusers' pipelines put in the place of a word with three vectors."""

PLAIN = {
    "none": BASE,
    "one": replace(BASE, prompt="a <one> cat", seed=6),
    "three": replace(BASE, prompt="<trio>, a dog", negative_prompt="<one> b", seed=7),
    "negative": replace(BASE, negative_prompt="<trio>", seed=8),
    "both": replace(BASE, prompt="<one><trio> a <one>", seed=9, clip_skip=2),
    "cut": replace(BASE, prompt=f"{'x ' * 73}<trio> y", seed=10),
    "bare": replace(BASE, prompt="one trio", seed=11),
}
"""Requests that share calls of the UNet."""


@dataclass(frozen=True, kw_only=True)
class Taught:
    """A model, the folder of its embeddings, and a pipeline of diffusers that has loaded them."""

    pair: Pair
    folder: Path
    reference: Reference

    def made(self, requests: Mapping[str, GenerationSpec]) -> dict[str, Ending]:
        """Make all images of requests that come together."""
        adapters = store_of(self.pair.model, catalog=AdapterCatalog(self.folder))
        loop = StepLoop(self.pair.model, batch_limit=8, adapters=adapters)
        for job_id, request in requests.items():
            loop.add(job_id, request)
        found = comparison.endings(loop)
        assert not [each.failure for each in found.values() if each.failure]
        return found


@pytest.fixture(scope="module", params=["sd", "sdxl"])
def taught(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Taught]:
    """Return a random-weight model of a kind with embeddings."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    root = tmp_path_factory.mktemp("models")
    pair = PromptPairs(root)(request.param)
    folder = root / "loras" / "embeddings"
    vectors = embedding_files.written(folder, pair.reference.pipeline)
    reference = Reference(pair.reference.folder)
    embedding_files.taught(reference.pipeline, vectors)
    yield Taught(pair=pair, folder=folder, reference=reference)
    torch.set_num_threads(threads)


def test_rows_as_in_diffusers(taught: Taught) -> None:
    """Rows with other embeddings and with none share calls; each is as diffusers draws it."""
    size = len(taught.pair.model.family.pipeline.tokenizer)
    together = taught.made(PLAIN)

    for name, request in PLAIN.items():
        theirs = taught.reference.images(request)
        found = comparison.difference(together[name].images, theirs)
        assert found.same, f"{name}: {found}"
        assert together[name].shared, f"{name} shared no step"
        alone = taught.made({"it": request})["it"].images
        assert comparison.difference(alone, theirs).same, name
        plain = taught.pair.reference.images(request)
        changes = not comparison.difference(theirs, plain).same
        assert changes == (name not in {"none", "bare"}), name
    assert len(taught.pair.model.family.pipeline.tokenizer) == size


def test_names_in_the_syntax_of_automatic1111(taught: Taught) -> None:
    """A bare name counts, with weights, in either prompt, and from the step in which it stands."""
    reference = PromptReference(taught.reference)
    cat = [[("a cat", 1)]]
    three = [[("a ", 1), (TRIO, 1.3), (" cat", 1)]]
    # Three vectors do not fit behind 74 letters, and are not torn apart.
    long = [[("x " * 74, 1)], [(f"{TRIO} y", 1)]]
    cases = {
        "weighted": (replace(A1111, prompt="a (trio:1.3) cat", seed=6), [meant(three)]),
        "negative": (
            replace(A1111, negative_prompt="[Trio]", seed=7),
            [meant(cat, [[(TRIO, 1 / 1.1)]])],
        ),
        "later": (
            replace(A1111, prompt="a [cat:one:0.5]", seed=8),
            [meant(cat), meant(cat), meant([[("a <one>", 1)]])],
        ),
        "long": (replace(A1111, prompt=f"{'x ' * 74}trio y", seed=9), [meant(long)]),
        "plain mate": (replace(BASE, prompt="a <one>", seed=10), [meant([[("a <one>", 1)]])]),
    }

    together = taught.made({name: request for name, (request, _) in cases.items()})

    for name, (request, steps) in cases.items():
        found = comparison.difference(together[name].images, reference.images(request, steps))
        assert found.same, f"{name}: {found}"


def test_the_model_stays_as_it_was(taught: Taught) -> None:
    """Next to embeddings and after them an image without them is the same, byte for byte."""
    before = comparison.alone(taught.pair.model, BASE)

    next_to = taught.made(PLAIN)["none"].images
    after = comparison.alone(taught.pair.model, BASE)

    assert comparison.difference(next_to, before).same
    assert comparison.difference(after, before).equal == 1.0
    for network, _ in embedding_files.encoders(taught.pair.model.family.pipeline):
        layer = network.get_input_embeddings()
        assert not layer._forward_hooks
        assert not layer._forward_pre_hooks


# Of the two only XL has a pooled embedding.
@pytest.mark.parametrize("taught", ["sdxl"], indirect=True)
def test_the_end_of_older_texts_is_the_highest_token(taught: Taught) -> None:
    """As transformers reads configurations whose end is token 2; diffusers pools at the word."""
    ours, theirs = taught.pair.model.family.pipeline, taught.reference.pipeline
    networks = [each.text_encoder_2.text_model for each in (ours, theirs)]
    kept = networks[0].eos_token_id
    try:
        for each in networks:
            each.eos_token_id = 2
        request = replace(BASE, prompt="a <one> cat", guidance_scale=1.0)
        images = taught.made({"it": request})["it"].images
        assert comparison.difference(images, taught.reference.images(request)).same
    finally:
        for each in networks:
            each.eos_token_id = kept
