"""The diffusers pipeline as a reference, built by diffusers and torch alone.

Nothing here that computes is the service's: a reference made by the code under test would share
its faults.
"""

import json
from typing import Any, Final

import torch
from diffusers import DiffusionPipeline, DPMSolverMultistepScheduler

from service.config.table import Config
from service.models.source import Source

GIB: Final = 2**30
CONTEXT: Final = 0.6 * GIB
"""Part of a limit that CUDA itself takes and torch does not count; the engine keeps as much."""


def load(source: Source, config: Config) -> Any:
    """Load a pipeline under the settings of the service that say where and how it computes."""
    device = torch.device("cpu")
    if config.device != "cpu" and torch.cuda.is_available():
        device = torch.device("cuda:0")
    limit_memory(device, config.vram_limit_gb)
    half = torch.float16 if device.type == "cuda" else torch.float32
    dtype = half if config.dtype == "auto" else getattr(torch, config.dtype)
    plain: Any = DiffusionPipeline.from_pretrained(
        source.path,
        dtype=dtype,
        use_safetensors=True,
        local_files_only=True,
        **layout(source, half=dtype == torch.float16),
    )
    # Changes go by keyword: from_config drops keys of a merged configuration that the model's
    # own scheduler had by default.
    plain.scheduler = DPMSolverMultistepScheduler.from_config(
        plain.scheduler.config,
        algorithm_type="dpmsolver++",
        solver_order=2,
        use_karras_sigmas=False,
    )
    plain.set_progress_bar_config(disable=True)
    if config.attention_slicing:
        plain.enable_attention_slicing()
    match config.cpu_offload:
        case "model":
            plain.enable_model_cpu_offload(device=device)
        case "sequential":
            plain.enable_sequential_cpu_offload(device=device)
        case _:
            plain.to(device)
    return plain


def limit_memory(device: torch.device, gigabytes: float) -> None:
    """Let this process take no more of a GPU than so much, CUDA's own part included."""
    if gigabytes and device.type == "cuda":
        total = torch.cuda.get_device_properties(device).total_memory
        share = (gigabytes * GIB - CONTEXT) / total
        torch.cuda.set_per_process_memory_fraction(min(share, 1.0), device)


def layout(source: Source, *, half: bool) -> dict[str, Any]:
    """Return how a folder is read: half precision from such files if it has some, no checker.

    The engine leaves a safety checker out, too: neither time nor VRAM goes there.
    """
    if source.path is None:
        return {}
    found: dict[str, Any] = {}
    if half and any(source.path.glob("*/*.fp16.safetensors")):
        found["variant"] = "fp16"
    index = json.loads((source.path / "model_index.json").read_text(encoding="utf-8"))
    if index.get("safety_checker"):
        found |= {"safety_checker": None, "feature_extractor": None}
        found["requires_safety_checker"] = False
    return found
