"""The one table of settings: it drives the environment, the flags, --help and the docs."""

from dataclasses import dataclass, fields
from pathlib import Path

from service.config.addresses import Listed
from service.config.cluster_settings import ClusterSettings
from service.config.contradictions import contradictions
from service.config.setting import check, setting
from service.core.sampler import SAMPLER_NAMES, Schedule
from service.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Config(ClusterSettings):
    """Settings of one service; each field is the environment variable of the same name."""

    # The model and where it runs.
    model_id: str = setting(
        "demo",
        "Model to load: 'demo' (bundled), a hub id, a folder in diffusers layout or a "
        ".safetensors file.",
        path=True,
    )
    models: Listed = setting(  # noqa: RUF009 - it is immutable
        Listed(),
        "Comma-separated models that requests can name next to the default one: folders that hold "
        "models, and hub ids.",
    )
    host_cache_gb: float = setting(
        0.0,
        "Host memory for models that are loaded or parked, in GB, for all engines together. 0 uses "
        "half of the machine's memory.",
        minimum=0.0,
    )
    model_idle_seconds: float = setting(
        0.0, "Time without a request after which a model is unloaded. 0 keeps it.", minimum=0.0
    )
    profile: str = setting(
        "none",
        "Values for a kind of card, each of which a setting of its own beats. 6gb (GTX 1060): "
        "DTYPE=auto, ATTENTION_SLICING=false, CPU_OFFLOAD=none, VAE_TILING_ABOVE=512, "
        "BATCH_CALIBRATION=true.",
        choices=("none", "6gb"),
    )
    model_cache_dir: Path = setting(  # noqa: RUF009 - a Path is immutable
        Path("models"), "Folder for models downloaded from the hub.", path=True
    )
    lora_dir: str = setting(
        "",
        "Folder of adapters (LoRA files) and embeddings that requests can name. Empty uses the "
        "folder loras in MODEL_CACHE_DIR.",
        path=True,
    )
    lora_host_gb: float = setting(
        2.0,
        "Most host memory for the adapters of all models together, in GB. Those that were not used "
        "for longest are dropped first.",
        minimum=0.0,
    )
    lora_gpu_gb: float = setting(
        1.0,
        "Most GPU memory for all models' adapters, in GB; on a CPU only LORA_HOST_GB counts.",
        minimum=0.0,
    )
    cuda_visible_devices: str = setting(
        "0",
        "Comma-separated GPUs to use, by index or UUID: each gets an engine process of its own. "
        "Empty uses no GPU. With ENGINE=ray each node says what it offers, and this is not read.",
        empty=True,
    )
    engines: int = setting(
        0,
        "Engine processes. 0 starts one for each GPU, and one on a CPU. Not with ENGINE=ray.",
        minimum=0,
        maximum=64,
    )
    device: str = setting("auto", "Device to compute on.", choices=("auto", "cpu", "cuda"))
    dtype: str = setting(
        "auto",
        "Number format of the weights. auto is float16 on a GPU and float32 on a CPU.",
        choices=("auto", "float16", "bfloat16", "float32"),
    )
    torch_threads: int = setting(
        0,
        "CPU threads of each engine. 0 uses every core that is available; several engines share "
        "them evenly.",
        minimum=0,
        maximum=1024,
    )
    attention_slicing: bool = setting(
        False, "Compute attention in slices. Slower; with SDPA it uses more memory, not less."
    )
    cpu_offload: str = setting(
        "none",
        "Keep idle parts of the model in host memory. Needs a GPU; slower, but uses less GPU "
        "memory.",
        choices=("none", "model", "sequential"),
    )
    vram_limit_gb: float = setting(
        0.0,
        "Most GPU memory that the engine uses, in GB, for a shared GPU. 0.6 GB of it are "
        "reserved for CUDA itself. 0 allows the whole GPU.",
        minimum=0.0,
    )
    prediction_type: str = setting(
        "auto",
        "What the UNet predicts, for a model whose files do not say: a folder without "
        "prediction_type in its scheduler, or a single file without a marker and without a "
        "folder next to it. auto is epsilon for 1.x and XL, and v_prediction for 2.x.",
        choices=("auto", "epsilon", "v_prediction"),
    )
    vae: str = setting(
        "",
        "VAE that decodes in place of the model's own: a name in the folder vae of "
        "MODEL_CACHE_DIR, a folder in diffusers layout or a .safetensors file.",
        path=True,
    )
    tiny_vae: str = setting(
        "",
        "Small, fast VAE (AutoencoderTiny, as TAESD), named as VAE is. Images of TINY_VAE_USE=all "
        "lose some detail.",
        path=True,
    )
    tiny_vae_use: str = setting(
        "previews", "Images that TINY_VAE decodes.", choices=("previews", "all")
    )
    vae_tiling: bool = setting(False, "Decode in tiles. Uses less memory at large sizes.")
    vae_tiling_above: int = setting(
        0,
        "Tile size in pixels: decode images in tiles of this size when a side is longer. 0 "
        "uses the model's own tile size with VAE_TILING, and no tiles without it.",
        minimum=0,
        maximum=4096,
        multiple=64,
    )
    safety_checker: bool = setting(
        False, "Black out images that the model's safety checker flags. The model must include one."
    )

    # Work.
    max_concurrent_requests: int = setting(
        3, "Most images in one GPU batch.", minimum=1, maximum=64
    )
    batch_calibration: bool = setting(
        False,
        "Measure at start which batch sizes are faster, and make no batch that gains less "
        "than 5 % an image. MAX_CONCURRENT_REQUESTS stays the upper limit.",
    )
    queue_size: int = setting(64, "Most waiting requests. Further ones get 503.", minimum=1)
    request_timeout_seconds: float = setting(
        300.0,
        "Age at which a request ends with 408 and frees the GPU.",
        minimum=0.001,
        maximum=1e10,
    )
    shutdown_timeout_seconds: float = setting(
        60.0, "Time that SIGTERM waits for accepted requests.", minimum=0.0
    )
    max_attempts: int = setting(
        3,
        "Most starts of a request. After that many engine crashes it fails.",
        minimum=1,
        maximum=10,
    )

    engine_stall_seconds: float = setting(
        600.0,
        "Longest silence of an engine that loads or has work before it is killed and started "
        "again; once its usual step is known ten times that, and 5 s at least (for other stages "
        "20 s), if that is less.",
        minimum=0.01,
    )

    # Jobs that outlive their connection.
    data_dir: str = setting(
        "data",
        "Folder for accepted jobs and their images. Empty turns jobs off.",
        empty=True,
        path=True,
    )
    results_max_age_seconds: float = setting(
        86_400.0, "Time that finished jobs and their images are kept.", minimum=60.0
    )
    image_url_seconds: float = setting(
        3600.0,
        "Time that links to images (response_format=url on the OpenAI API) can be opened, if less "
        "than RESULTS_MAX_AGE_SECONDS.",
        minimum=1.0,
        maximum=1e10,
    )
    results_max_bytes: int = setting(
        2 * 2**30,
        "Space for kept images, those that requests brought included. The oldest are deleted "
        "first.",
        minimum=2**20,
    )
    jobs_without_images_max_age_seconds: float = setting(
        86_400.0,
        "Time that failed and cancelled jobs are kept, if less than RESULTS_MAX_AGE_SECONDS.",
        minimum=60.0,
    )
    jobs_without_images_max: int = setting(
        10_000,
        "Most failed and cancelled jobs that are kept. The oldest jobs of the keys with the "
        "most go first.",
        minimum=1,
    )
    uploads_max_bytes: int = setting(
        768 * 2**20,
        "Space for images that requests bring, until a job has them; without DATA_DIR memory, and "
        "until the job is over. Further ones get 503.",
        minimum=2**20,
    )
    uploads_max_bytes_per_key: int = setting(
        0,
        "The same for one API key, or without keys for one client; further images get 429. 0 "
        "allows half of UPLOADS_MAX_BYTES.",
        minimum=0,
    )
    webhook_secret: str = setting(
        "",
        "Secret that signs webhooks, except for API keys with a secret of their own.",
        secret=True,
    )
    webhook_hosts: str = setting(
        "",
        "Comma-separated hosts and networks that webhooks may go to, in addition to https on "
        "public addresses.",
    )

    # Limits and defaults of one request.
    max_prompt_chars: int = setting(500, "Longest prompt in characters.", minimum=1, maximum=10_000)
    default_steps: int | None = setting(
        None,
        "Denoising steps of a request that names none. auto is the value of the model's recipe, "
        "else 20.",
        minimum=1,
    )
    max_steps: int = setting(50, "Most denoising steps.", minimum=1, maximum=1000)
    default_size: int | None = setting(
        None,
        "Width and height of a request that names none. auto is the size that the model was "
        "trained with: 512 for SD 1.x and the base models of 2.x, 768 for 2.x that predicts the "
        "velocity, 1024 for XL.",
        minimum=64,
        maximum=4096,
        multiple=64,
    )
    min_size: int | None = setting(
        None,
        "Smallest width or height. auto is 256 for SD 1.x and 2.x, and 512 for XL.",
        minimum=64,
        maximum=4096,
        multiple=64,
    )
    max_size: int | None = setting(
        None,
        "Largest width or height. auto is 768 for SD 1.x and 2.x, and 1536 for XL.",
        minimum=64,
        maximum=4096,
        multiple=64,
    )
    compat_sizes: str = setting(
        "fit",
        "Sizes and steps that are not possible, on the OpenAI and AUTOMATIC1111 APIs: fit takes "
        "the nearest possible ones and says so in the answer, refuse answers 400.",
        choices=("fit", "refuse"),
    )
    max_images: int = setting(4, "Most images in one request.", minimum=1, maximum=64)
    default_sampler: str | None = setting(
        None,
        "Sampler of a request that names none. auto is the value of the model's recipe, else "
        "dpmpp_2m.",
        choices=SAMPLER_NAMES,
    )
    default_schedule: str | None = setting(
        None,
        "Noise schedule of a request that names none. auto is the value of the model's recipe, "
        "else automatic. Automatic where the sampler or the model cannot follow it.",
        choices=tuple(Schedule),
    )
    default_guidance_scale: float | None = setting(
        None,
        "Guidance scale of a request that names none. auto is the value of the model's recipe "
        "(3 for the demo model), else 7.5.",
        minimum=0.0,
        maximum=30.0,
    )
    image_metadata: str = setting(
        "full",
        "What image files and the header X-Metadata say about how images were made. none makes "
        "files of nothing but pixels, images that are kept included, and leaves the header out; "
        "JSON answers stay as they are.",
        choices=("full", "none"),
    )

    # What it says.
    log_level: str = setting(
        "INFO", "Lowest severity that is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    log_format: str = setting(
        "auto",
        "Log format. auto is colours on a terminal, else JSON.",
        choices=("auto", "console", "json"),
    )
    log_prompts: bool = setting(False, "Write prompts into the log.")

    # For drills and developers.
    allow_debugger: bool = setting(
        False,
        "Let debuggers and profilers of the service's user read its memory, including secrets.",
    )
    fault_file: str = setting(
        "",
        "JSON file of faults that the engine commits on purpose. Never set it in production.",
        path=True,
    )

    def __post_init__(self) -> None:
        """Refuse values outside the table, all at once; then those that do not fit together."""
        problems = [p for row in fields(self) for p in check(row, getattr(self, row.name))]
        problems = problems or contradictions(self)
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def bare_images(self) -> bool:
        """Return whether image files hold nothing but pixels."""
        return self.image_metadata == "none"
