"""Which engines the settings ask for, and what each is given."""

import os

import pytest

from service.config.table import Config
from service.engine.process import local
from service.engine.process.parent import ProcessEngine
from service.gpu import torch_build
from service.gpu.card import NoCardError
from service.gpu.torch_build import TorchBuild
from service.system import host_memory


@pytest.fixture(autouse=True)
def _machine(monkeypatch):
    """Eight cores, 64 GB, and a torch that knows GPUs, of which there are some."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _pid: set(range(8)))
    monkeypatch.setattr(host_memory, "total", lambda: 64 * 2**30)
    found = TorchBuild(version="2.13.0", cuda=(12, 6))
    monkeypatch.setattr(torch_build, "installed", lambda: found)
    monkeypatch.setattr(local, "look", lambda _gpu: None)


@pytest.fixture
def no_gpu(monkeypatch):
    """Have no driver."""

    def none(_gpu):
        raise NoCardError("there is no NVIDIA driver here")

    monkeypatch.setattr(local, "look", none)


def given(**settings) -> list[tuple[str, int, float]]:
    """Return GPU, threads and host memory of each engine."""
    found = local.configs(Config(**settings))
    return [(each.cuda_visible_devices, each.torch_threads, each.host_cache_gb) for each in found]


def test_one_engine_has_the_machine_for_itself():
    """As the settings say."""
    assert given() == [("0", 0, 0.0)]
    assert given(torch_threads=3, host_cache_gb=5) == [("0", 3, 5)]


def test_each_gpu_has_an_engine():
    """With its share of the cores and of the memory for models."""
    assert given(cuda_visible_devices="0, GPU-3f") == [("0", 4, 16.0), ("GPU-3f", 4, 16.0)]
    assert given(cuda_visible_devices="3,1,-1,2") == [("3", 4, 16.0), ("1", 4, 16.0)]
    settings = {"torch_threads": 1, "host_cache_gb": 9.0}
    assert given(cuda_visible_devices="0,1,2", **settings) == [
        (name, 1, 3.0) for name in ("0", "1", "2")
    ]


@pytest.mark.parametrize("device", ["auto", "cpu"])
@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_there_is_one_engine(device):
    """However many GPUs are named: on a CPU another one gains nothing by itself."""
    assert len(given(cuda_visible_devices="0,1", device=device)) == 1


@pytest.mark.usefixtures("no_gpu")
def test_on_a_cpu_there_are_as_many_engines_as_are_asked_for():
    """Sixteen on eight cores have one each."""
    assert given(engines=2) == [("0", 4, 16.0)] * 2
    assert [threads for _, threads, _ in given(engines=16)] == [1] * 16


def test_no_gpu_is_named():
    """The engine finds none, whatever is there."""
    assert given(cuda_visible_devices="") == [("", 0, 0.0)]
    assert given(cuda_visible_devices="-1,0") == [("", 0, 0.0)]


def test_every_engine_is_a_process_of_its_own():
    """Nothing starts before the service does."""
    engines = local.engines_of(Config(cuda_visible_devices="0,1")).engines
    assert [type(each) for each in engines] == [ProcessEngine] * 2
    assert len({*engines}) == 2
