"""What the application and its requests carry, by typed key."""

import asyncio

from aiohttp import web

from service.config import Config
from service.diffusion.generation import GenerationRequest
from service.jobs.consumer import Consumer
from service.telemetry.gpu import GpuSampler
from service.telemetry.metrics import Metrics

CONFIG = web.AppKey("config", Config)
CONSUMER = web.AppKey("consumer", Consumer)
GPU = web.AppKey("gpu", GpuSampler)
METRICS = web.AppKey("metrics", Metrics)
OPENAPI = web.AppKey("openapi", bytes)
STARTED = web.AppKey("started", float)
"""``time.monotonic`` at the start."""

DEADLINE = web.RequestKey("deadline", asyncio.Timeout)
ERROR_CODE = web.RequestKey("error_code", str)
GENERATION = web.RequestKey("generation", GenerationRequest)
REQUEST_ID = web.RequestKey("request_id", str)
