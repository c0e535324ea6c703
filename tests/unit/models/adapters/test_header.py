"""Headers of adapter files."""

import json
from pathlib import Path

import pytest

from service.errors import AdapterUnsuitable
from service.models.adapters import header
from service.models.adapters.names import Part, Place
from tests.support.models.adapter_headers import TO_K, low_rank, written


def fault(path: Path) -> str:
    """Return the one line that a file is refused with."""
    with pytest.raises(AdapterUnsuitable) as caught:
        header.read(path)
    assert "\n" not in caught.value.detail
    assert str(path.parent) not in caught.value.detail
    return caught.value.detail


@pytest.mark.parametrize(("width", "family"), [(768, "sd1"), (1024, "sd2"), (2048, "sdxl")])
def test_the_family_follows_the_width_of_the_texts(tmp_path: Path, width: int, family: str) -> None:
    """Cross-attention takes the text embeddings, whose width every family has for itself."""
    found = header.read(written(tmp_path / "a.safetensors", low_rank(TO_K, into=width)))
    assert found.family == family


@pytest.mark.parametrize(
    ("name", "told", "family"),
    [
        ("ss_base_model_version", "sd_v1", "sd1"),
        ("ss_base_model_version", "sdxl_base_v1-0", "sdxl"),
        ("modelspec.architecture", "stable-diffusion-v2-768-v/lora", "sd2"),
        ("modelspec.architecture", "else", ""),
    ],
)
def test_the_family_from_the_metadata(tmp_path: Path, name: str, told: str, family: str) -> None:
    """A file without cross-attention may name its family, or leave it open."""
    shapes = low_rank(TO_K.replace("attn2", "attn1"))
    path = written(tmp_path / "a.safetensors", shapes, {name: told})
    assert header.read(path).family == family


def test_a_second_text_encoder_is_that_of_sdxl(tmp_path: Path) -> None:
    """No other family has two."""
    shapes = low_rank("lora_te2_text_model_encoder_layers_0_mlp_fc1")
    assert header.read(written(tmp_path / "a.safetensors", shapes)).family == "sdxl"


def test_trigger_words(tmp_path: Path) -> None:
    """The phrase comes first, then the tags of the training by how often it saw them."""
    tags = {"10_ink": {"ink drawing ": 12, "boat": 3}, "5_more": {"boat": 20, "x": "odd"}}
    metadata = {"ss_tag_frequency": json.dumps(tags), "modelspec.trigger_phrase": "in ink"}
    found = header.read(written(tmp_path / "a.safetensors", metadata=metadata))
    assert found.trigger_words == ("in ink", "boat", "ink drawing")


@pytest.mark.parametrize("tags", ["[]", "no JSON", '{"a": 1}', "[" * 100_000])
def test_metadata_that_is_no_table_tells_nothing(tmp_path: Path, tags: str) -> None:
    """A trainer's notes never keep an adapter from being used."""
    path = written(tmp_path / "a.safetensors", metadata={"ss_tag_frequency": tags})
    assert header.read(path).trigger_words == ()


def test_alpha_from_the_metadata(tmp_path: Path) -> None:
    """PEFT's settings count where no tensor names alpha: for all, by module, by the rank's root."""
    settings = {"unet.lora_alpha": 2, "unet.alpha_pattern": {"attn1.to_q": 3}}
    path = written(
        tmp_path / "a.safetensors", metadata={"lora_adapter_metadata": json.dumps(settings)}
    )
    found = header.read(path)
    assert found.alpha(Place(Part.UNET, "x_attn2_to_q"), 4) == 2
    assert found.alpha(Place(Part.UNET, "x_attn1_to_q"), 4) == 3
    assert found.alpha(Place(Part.TEXT, "x"), 4) == 4
    path = written(
        tmp_path / "b.safetensors",
        metadata={"lora_adapter_metadata": json.dumps({**settings, "unet.use_rslora": True})},
    )
    assert header.read(path).alpha(Place(Part.UNET, "x_attn2_to_q"), 4) == 4


def test_unknown_tensors_are_named(tmp_path: Path) -> None:
    """Nothing is left out in silence."""
    path = written(tmp_path / "a.safetensors", {**low_rank(TO_K), "bundle_emb.x": (3,)})
    assert "tensors that are not understood (bundle_emb.x)" in fault(path)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        ("lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight", "an adapter for Flux"),
        ("transformer.joint_attn.lora_A.weight", "an adapter for Stable Diffusion 3"),
    ],
)
def test_other_families_by_name(tmp_path: Path, key: str, words: str) -> None:
    """A file of another family is told apart from a damaged one."""
    known = key.replace("lora_unet_", "") if "joint" not in key else key
    path = written(tmp_path / "a.safetensors", {known: (4, 8)})
    assert words in fault(path)


@pytest.mark.parametrize("missing", ["lora_down.weight", "lora_up.weight"])
def test_half_of_a_change_is_damage(tmp_path: Path, missing: str) -> None:
    """A layer needs both matrices."""
    shapes = {k: v for k, v in low_rank(TO_K).items() if not k.endswith(missing)}
    assert "do not make up a change" in fault(written(tmp_path / "a.safetensors", shapes))


def test_matrices_of_different_rank_are_damage(tmp_path: Path) -> None:
    """The ranks of both matrices are one number."""
    shapes = {**low_rank(TO_K), f"{TO_K}.lora_up.weight": (320, 5)}
    assert "do not make up a change" in fault(written(tmp_path / "a.safetensors", shapes))


def test_pickles_and_damage_in_one_line(tmp_path: Path) -> None:
    """Neither is read any further."""
    pickle = tmp_path / "a.pt"
    pickle.write_bytes(b"PK\3\4archive/data.pkl")
    assert "a pickle file of PyTorch, which can run code when read" in fault(pickle)
    cut = written(tmp_path / "b.safetensors")
    cut.write_bytes(cut.read_bytes()[:-10])
    assert "b.safetensors is cut short: 10 of" in fault(cut)
    empty = written(tmp_path / "c.safetensors", {})
    assert "holds no tensors" in fault(empty)


@pytest.mark.parametrize(
    ("shapes", "family", "parts"),
    [
        ({"emb_params": (8, 768)}, "sd1", {Part.TEXT}),
        ({"emb_params": (1, 1024)}, "sd2", {Part.TEXT}),
        ({"<cat-toy>": (768,)}, "sd1", {Part.TEXT}),
        ({"sks": (2, 1024)}, "sd2", {Part.TEXT}),
        ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "sdxl", {Part.TEXT, Part.TEXT_2}),
        (
            {"text_encoders_0": (1, 768), "text_encoders_1": (1, 1280)},
            "sdxl",
            {Part.TEXT, Part.TEXT_2},
        ),
    ],
)
def test_vectors_of_a_word(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]], family: str, parts: set[Part]
) -> None:
    """All forms of textual inversion that people have."""
    found = header.read(written(tmp_path / "toy.safetensors", shapes))
    assert (found.family, {*found.vectors}) == (family, parts)
    assert found.trigger_words == ("<toy>",)
    assert not found.modules


@pytest.mark.parametrize(
    "shapes",
    [
        {"clip_g": (2, 1280)},
        {"emb_params": (8, 768), "more": (8, 768)},
        {"emb_params": (8, 4, 768)},
        {"emb_params": (76, 768)},
        {"something": (8, 31)},
    ],
)
def test_other_tensors_are_no_vectors_of_a_word(
    tmp_path: Path, shapes: dict[str, tuple[int, ...]]
) -> None:
    """They are refused as before."""
    assert "not understood" in fault(written(tmp_path / "toy.safetensors", shapes))
