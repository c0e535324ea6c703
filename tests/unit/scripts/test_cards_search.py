"""The order in which settings are tried on a card, with processes of paper in place of engines."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from PIL import Image

from scripts.benchmark.rows import row
from scripts.cards import search
from scripts.cards.choice import choose
from scripts.cards.measure import Measured, Order
from scripts.cards.search import Question, Search
from service.gpu.card import GIB

Card = Callable[[Mapping[str, str]], Measured]


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Card], Search]:
    """Return a search on a card that answers as it is told to."""

    def searching(card: Card) -> Search:
        def run(order: Order, settings: Mapping[str, str]) -> Measured:
            found = card(settings)
            level = 120 if settings["DTYPE"] == "bfloat16" else 100
            if found.worked:
                Image.new("RGB", (8, 8), (level,) * 3).save(Path(order.folder) / "1.png")
            return found

        monkeypatch.setattr(search, "run", run)
        return Search(
            question=Question(vram=6, row=row("768x768/2"), batch=3),
            rounds=1,
            folder=tmp_path,
            fixed={"MODEL_ID": "some", "VRAM_LIMIT_GB": "6"},
        )

    return searching


def took(seconds: float, gigabytes: float) -> Measured:
    return Measured(gpu=True, seconds=(seconds,), process=int(gigabytes * GIB))


def test_a_card_with_room_keeps_its_plain_settings(on):
    """Float32 is too large, bfloat16 draws something else, and all else is slower."""

    def card(settings: Mapping[str, str]) -> Measured:
        assert settings["VRAM_LIMIT_GB"] == "6"
        if settings["DTYPE"] == "float32" and settings["CPU_OFFLOAD"] == "none":
            return Measured(failure="out of memory")
        slower = sum(
            settings[name] not in {"false", "0", "none", "1"}
            for name in settings
            if name not in {"DTYPE", "MODEL_ID", "VRAM_LIMIT_GB"}
        )
        return took((10 if settings["DTYPE"] == "bfloat16" else 15) * (1 + slower / 10), 3.5)

    done = on(card)
    trials = done.run()
    assert done.reference is not None
    assert done.reference.settings["CPU_OFFLOAD"] == "model"
    best, _ = choose(trials, 6)
    assert best is not None
    assert best.settings == done.question.base
    assert len(trials) <= done.most
    assert len({tuple(each.settings.items()) for each in trials}) == len(trials)


def test_what_fits_only_in_parts_is_found(on):
    """Where nothing fits whole, offloading is tried with tiles, and batches upon that."""

    def card(settings: Mapping[str, str]) -> Measured:
        if settings["CPU_OFFLOAD"] == "none" or settings["VAE_TILING_ABOVE"] == "0":
            return Measured(failure="out of memory")
        return took(60 / int(settings["MAX_CONCURRENT_REQUESTS"]), 4)

    done = on(card)
    best, _ = choose(done.run(), 6)
    assert best is not None
    chosen = best.settings
    assert (chosen["CPU_OFFLOAD"], chosen["VAE_TILING_ABOVE"]) == ("model", "512")
    assert chosen["MAX_CONCURRENT_REQUESTS"] == "3"
    # Nothing in float32 worked: the first that did is what the others are compared with.
    assert done.reference is not None
    assert done.reference.settings["DTYPE"] == "float16"


def test_nothing_that_works_is_no_choice(on):
    """Each is tried all the same, and why it failed is kept."""
    done = on(lambda _: Measured(failure="out of memory"))
    best, reason = choose(done.run(), 6)
    assert best is None
    assert "out of memory" in reason
    assert done.reference is None
    assert len(done.trials) > 10
