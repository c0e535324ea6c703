"""Which build of torch fits which GPU."""

import sys
from pathlib import Path

import pytest

from service.gpu import torch_build
from service.system import installation

CU126 = ["sm_50", "sm_60", "sm_70", "sm_75", "sm_80", "sm_86", "sm_90"]
CU130 = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "architectures", "expected"),
    [
        ((6, 1), CU126, True),  # GTX 1060: there is no sm_61, and sm_60 serves it.
        ((6, 1), CU130, False),
        ((7, 0), CU130, False),
        ((7, 5), CU130, True),
        ((8, 9), CU126, True),
        ((9, 0), CU126, True),
        ((12, 0), CU126, False),  # Blackwell wants CUDA 12.8 or newer.
        ((12, 1), CU130, True),
        ((13, 0), CU130, True),  # By PTX.
        ((10, 3), ["sm_100"], True),
        ((6, 0), ["sm_61"], False),  # A higher minor version does not run on a lower one.
        ((9, 0), ["sm_90a"], True),
        ((9, 1), ["sm_90a"], False),
        ((6, 1), ["compute_60"], True),
        ((10, 3), ["compute_100f"], True),
        ((12, 0), ["sm_100f", "compute_100f"], False),
        ((5, 2), ["compute_60"], False),
        ((6, 1), ["gfx90a", "", "sm_", "sm_6"], False),
        ((6, 1), [], False),
    ],
)
def test_which_architectures_serve_a_gpu(capability, architectures, expected):
    """The same major version with a minor at or below, or PTX that is not newer."""
    assert torch_build.serves(capability, architectures) is expected


@pytest.mark.parametrize(
    ("capability", "words"),
    [
        ((3, 5), "image tagged cpu"),
        ((5, 0), "image tagged cu126"),
        ((6, 1), "cu126'"),
        ((7, 0), installation.here().torch("cu126")),
        ((7, 5), "image tagged cuda"),
        ((12, 0), "cu130'"),
        (None, "image tagged cuda"),
    ],
)
def test_the_cure_names_image_and_installation(capability, words):
    """Pascal and Volta are served by cu126 alone."""
    assert words in torch_build.cure(capability)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "__version__ = '2.13.0+cu126'\ncuda: Optional[str] = '12.6'\nhip: str = None\n",
            torch_build.TorchBuild(version="2.13.0+cu126", cuda=(12, 6)),
        ),
        (
            "__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n",
            torch_build.TorchBuild(version="2.13.0+cpu", cuda=None),
        ),
        (
            "__version__ = '2.13.0+rocm7'\ncuda = None\nhip = '7.0'\n",
            torch_build.TorchBuild(version="2.13.0+rocm7", cuda=None, other=True),
        ),
    ],
)
def test_a_build_is_read_without_importing_it(text, expected, tmp_path: Path, monkeypatch):
    """Importing torch takes seconds, and the service's own process never does."""
    package = tmp_path / "torch"
    package.mkdir()
    (package / "__init__.py").write_text("raise AssertionError\n")
    (package / "version.py").write_text(text)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert torch_build.installed() == expected
