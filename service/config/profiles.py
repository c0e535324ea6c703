"""Settings that suit a kind of card, by the name of its profile."""

from collections.abc import Mapping
from typing import Any

PROFILES: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    # SDPA is always on: with it a GTX 1060 makes 512x512 in about 3.5 GB, and attention slicing
    # takes more memory, not less. DTYPE=auto is float16 on a GPU; naming it would refuse a CPU.
    "6gb": {
        "dtype": "auto",
        "attention_slicing": False,
        "cpu_offload": "none",
        "vae_tiling_above": 512,
        "batch_calibration": True,
    },
}
"""What a profile sets, where no variable or flag does."""
