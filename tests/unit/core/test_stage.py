"""Stages and their times."""

from service.core.stage import LOOP_STAGES, Stage, StageTimes


def test_times_have_every_stage_of_the_loop():
    """In the order in which they come."""
    times = StageTimes(text_encode=0.5, denoise=2.0, safety=0.25)
    assert times.by_stage == {
        "text_encode": 0.5,
        "vae_encode": 0,
        "denoise": 2,
        "vae_decode": 0,
        "safety": 0.25,
    }
    assert times.total == 2.75
    assert list(LOOP_STAGES) == [stage for stage in Stage if stage in LOOP_STAGES]
