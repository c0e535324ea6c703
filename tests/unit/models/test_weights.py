"""Headers of safetensors are read without trust; one rule says which weights are read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save, save_file

from service.errors import ModelError
from service.models import weights
from service.models.hub import pull
from service.models.hub.pull import RemoteFile
from service.models.source import Source
from tests.support.engine_extra import needs_engine


def written(path: Path, header: object, data: bytes = b"", *, length: int | None = None) -> Path:
    """Write a file with this header, honest about its length or not."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


def row(
    shape: object = (1,), offsets: object = (0, 2), dtype: object = "F16", **more: Any
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets, **more}


BAD_HEADERS: dict[str, object] = {
    "deep": b'{"w":' + b"[" * 100_000,
    "no JSON": b'{"w": ',
    "no text": b'{"\xff": 1}',
    "a list in a row": {"w": [1]},
    "a number in a row": {"w": 1},
    "nothing in a row": {"w": None},
    "an empty row": {"w": {}},
    "a negative shape": {"w": row([-1])},
    "a shape of text": {"w": row(["1"])},
    "a shape of truth": {"w": row([True])},
    "a shape of fractions": {"w": row([1.0])},
    "no list for a shape": {"w": row(7)},
    "a huge shape": {"w": row([2**63])},
    "a shape that overflows": {"w": row([2**40, 2**40])},
    "many dimensions": {"w": row([1] * 100)},
    "negative offsets": {"w": row([1], [-2, 0])},
    "turned offsets": {"w": row([1], [2, 0])},
    "one offset": {"w": row([1], [2])},
    "three offsets": {"w": row([1], [0, 1, 2])},
    "offsets of text": {"w": row([1], ["0", "2"])},
    "null for offsets": {"w": row([1], None)},
    "endless offsets": b'{"w":{"dtype":"F16","shape":[1],"data_offsets":[0,1e999]}}',
    "overlapping": {"v": row([1], [0, 2]), "w": row([1], [1, 3])},
    "the same place": {"v": row([1], [0, 2]), "w": row([1], [0, 2])},
    "a gap": {"v": row([1], [0, 2]), "w": row([1], [4, 6])},
    "not from the beginning": {"w": row([1], [2, 4])},
    "too little room": {"w": row([2], [0, 2])},
    "an unknown format": {"w": row(dtype="F17")},
    "no text for a format": {"w": row(dtype=["F16"])},
}


@pytest.mark.parametrize("kind", BAD_HEADERS)
def test_a_header_that_makes_no_sense_is_damage(tmp_path, kind):
    """The library refuses it, too; what is read says it in one line with a cure."""
    path = written(tmp_path / "model.safetensors", BAD_HEADERS[kind], bytes(6))
    with pytest.raises(SafetensorError), safe_open(path, framework="np"):
        pass
    with pytest.raises(ModelError, match=r"is damaged \(its header .*Download it again") as caught:
        weights.header(path)
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize("length", [2**63, 2**32, 100_000_001, 100_000_000, 1000])
def test_a_header_longer_than_its_file_is_damage(tmp_path, length):
    """Nothing is reserved for what it promises."""
    path = written(tmp_path / "model.safetensors", {}, length=length)
    with pytest.raises(ModelError, match=r"first bytes are not those|bytes of its header are"):
        weights.header(path)


def test_a_whole_file_tells_its_tensors_and_what_is_said_about_it(tmp_path):
    """The second is not among the first."""
    path = tmp_path / "model.safetensors"
    save_file(
        {"w": np.zeros((2, 3), np.float16), "none": np.zeros((0, 3), np.float32)},
        path,
        metadata={"format": "pt"},
    )
    assert weights.header(path)["w"]["shape"] == [2, 3]
    assert set(weights.header(path)) == {"w", "none"}
    assert weights.metadata(path) == {"format": "pt"}
    path.write_bytes(save({}))
    assert weights.header(path) == {}
    assert weights.metadata(path) == {}


FORMATS = ("", "fp16", "bf16", "fp32")
STEMS = ("model", "diffusion_pytorch_model")


def whole(stem: str, variant: str) -> list[str]:
    return [f"{stem}{'.' if variant else ''}{variant}.safetensors"]


def index_of(stem: str, variant: str) -> str:
    return f"{stem}.safetensors.index{'.' if variant else ''}{variant}.json"


def sharded(stem: str, variant: str, count: int, *, after: bool) -> list[str]:
    dotted = f".{variant}" if variant else ""
    before, behind = ("", dotted) if after else (dotted, "")
    return [
        f"{stem}{before}-{number:05}-of-{count:05}{behind}.safetensors"
        for number in range(1, count + 1)
    ]


SETS = [
    *(whole(stem, variant) for stem in STEMS for variant in FORMATS),
    *([index_of(stem, variant)] for stem in STEMS for variant in FORMATS),
    *(
        sharded(stem, variant, count, after=after)
        for stem in STEMS
        for variant in FORMATS
        for count in (1, 2, 3)
        for after in (False, True)
    ),
    ["config.json"],
    ["model.py"],
    ["diffusion_pytorch_model.non_ema.safetensors"],
    ["pytorch_model.bin", "pytorch_model.bin.index.json", "openvino_model.xml"],
    ["diffusion_pytorch_model.fp16.bin", "flax_model.msgpack"],
]
PARTS = ("unet", "vae", "text_encoder", "text_encoder_2")
FOLDERS = some.builds(
    lambda sets, lost: {name for one in sets for name in one} - set(lost),
    some.lists(some.sampled_from(SETS), max_size=6),
    some.lists(some.sampled_from(sorted({name for one in SETS for name in one})), max_size=2),
)
"""Names in a part's folder: some sets of files, of which some may be lost."""


@given(held=some.fixed_dictionaries(dict.fromkeys(PARTS, FOLDERS)), half=some.booleans())
def test_what_is_fetched_is_what_is_chosen_on_the_disk(held, half):
    """For whatever names the hub has: the same weights and index, and no others with them."""
    there = [
        RemoteFile(path=f"{part}/{name}", size=1) for part in PARTS for name in sorted(held[part])
    ]
    index: dict[str, object] = {part: ["diffusers", "Part"] for part in PARTS}
    expected = {part: weights.choose(held[part], half=half, part=part) for part in PARTS}
    try:
        fetched = {row.path for row in pull.wanted(there, index, half=half)}
    except ModelError:
        assert None in expected.values()
        return
    for part in PARTS:
        names = {path.removeprefix(f"{part}/") for path in fetched if path.startswith(f"{part}/")}
        chosen = weights.choose(names, half=half, part=part)
        assert chosen is not None
        assert chosen == expected[part]
        assert names - {"config.json"} == set(chosen.all_names)
        # Nor does another device, or a later start, find other weights in what was fetched.
        assert weights.choose(names, half=not half, part=part) == chosen


@given(names=FOLDERS, half=some.booleans())
def test_what_is_chosen_is_complete_and_of_one_kind(names, half):
    """One format, all shards with their index or one file, and only what is there."""
    chosen = weights.choose(names, half=half)
    if chosen is None:
        return
    assert set(chosen.all_names) <= names
    found = [weights.FILE.fullmatch(name) for name in chosen.names]
    assert {match and (match["before"] or match["after"]) for match in found} == {chosen.variant}
    assert len({match and match["stem"] for match in found}) == 1


@pytest.mark.parametrize(
    ("part", "names", "expected"),
    [
        ("unet", ["model.safetensors"], None),
        ("text_encoder", ["diffusion_pytorch_model.safetensors"], None),
        # Half of each naming is no whole.
        ("vae", ["diffusion_pytorch_model.fp16-00001-of-00002.safetensors",
                 "diffusion_pytorch_model-00002-of-00002.fp16.safetensors",
                 "diffusion_pytorch_model.safetensors.index.fp16.json"], None),
        ("vae", ["diffusion_pytorch_model-00001-of-00001.safetensors"], None),
        # diffusers reads the shards where there is an index, transformers the file.
        ("vae", ["diffusion_pytorch_model.safetensors",
                 "diffusion_pytorch_model-00001-of-00001.safetensors",
                 "diffusion_pytorch_model.safetensors.index.json"],
         ("diffusion_pytorch_model-00001-of-00001.safetensors",)),
        ("text_encoder", ["model.safetensors", "model-00001-of-00001.safetensors",
                          "model.safetensors.index.json"], ("model.safetensors",)),
    ],
)  # fmt: skip
def test_names_count_only_where_their_library_looks_for_them(part, names, expected):
    """Else a model would be fetched that does not load."""
    chosen = weights.choose(names, half=False, part=part)
    assert (chosen and chosen.names) == expected


def shard_folder(folder: Path) -> Path:
    """Write a UNet of two shards, and next to it an older set of three that is damaged."""
    folder.mkdir(parents=True)
    stem = "diffusion_pytorch_model"
    now = [f"{stem}-0000{number}-of-00002.safetensors" for number in (1, 2)]
    for number, name in enumerate(now):
        save_file({f"w{number}": np.zeros(2, np.float16)}, folder / name)
    for number in (1, 2, 3):
        (folder / f"{stem}-0000{number}-of-00003.safetensors").write_bytes(b"damaged")
    listed = {"metadata": {}, "weight_map": {"w0": now[0], "w1": now[1]}}
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps(listed))
    return folder


def test_of_two_sets_of_shards_the_index_tells_which_is_read(tmp_path):
    """What an earlier upload left behind does not count, nor its damage."""
    folder = shard_folder(tmp_path / "unet")
    assert [path.name[-14:-12] for path in weights.part_files(folder, half=False)] == ["02", "02"]
    source = Source(id="x", path=tmp_path, version="x")
    assert weights.needed_bytes(source, half=True) == 8
    faults = list(pull.damaged(source, half=False))
    assert len(faults) == 3
    assert all(fault.stray for fault in faults)


@pytest.mark.parametrize(
    "content",
    ['{"weight_map": {"w": "../../secret.safetensors"}}', '{"weight_map": {"w": "gone"}}',
     '{"weight_map": {"w": 1}}', '{"weight_map": []}', "{}", "[" * 100_000],
)  # fmt: skip
def test_an_index_that_leads_nowhere_is_damage(tmp_path, content):
    """Or out of its folder."""
    folder = shard_folder(tmp_path / "unet")
    (folder / "diffusion_pytorch_model.safetensors.index.json").write_text(content)
    with pytest.raises(ModelError, match=r"index\.json is damaged"):
        weights.part_files(folder, half=False)


def other_naming(name: str) -> str:
    """Move the number format of a shard's name from before its count to after it."""
    return name.replace(".fp16-", "-").replace(".safetensors", ".fp16.safetensors")


@needs_engine
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_both_libraries_read_what_is_chosen(tmp_path, part, after):
    """Shards with the number format before their count, as written today, and after it."""
    import torch  # noqa: PLC0415 - most tests do without torch
    from diffusers import UNet2DConditionModel  # noqa: PLC0415
    from transformers import CLIPTextModel  # noqa: PLC0415

    from tests.support.models import tiny_models  # noqa: PLC0415

    torch.manual_seed(0)
    kind: Any = UNet2DConditionModel if part == "unet" else CLIPTextModel
    made = tiny_models.unet() if part == "unet" else CLIPTextModel(tiny_models.text_config(260))
    folder = tmp_path / part
    made.half().save_pretrained(folder, variant="fp16", max_shard_size="40KB")
    (index,) = folder.glob("*.index.*")
    if after:
        for path in folder.glob("*.fp16-*"):
            path.rename(folder / other_naming(path.name))
        table = json.loads(index.read_text())
        table["weight_map"] = {k: other_naming(v) for k, v in table["weight_map"].items()}
        index.write_text(json.dumps(table))
    chosen = weights.choose([path.name for path in folder.iterdir()], half=False, part=part)
    assert chosen is not None
    assert chosen.index == index.name
    assert len(chosen.names) > 1
    loaded = kind.from_pretrained(folder, variant=chosen.variant, use_safetensors=True)
    for name, tensor in made.state_dict().items():
        assert torch.equal(tensor, loaded.state_dict()[name].half())


def test_the_tiny_models_are_read_whole(folder: Callable[[str], Path]):
    """Each part by its own library's name."""
    source = Source(id="x", path=folder("sd"), version="x")
    assert {path.parent.name for path in weights.read_files(source, half=False)} == {
        "unet",
        "vae",
        "text_encoder",
    }
