"""What all tests share: one thread, and a small real data set."""

from __future__ import annotations

import pytest
import torch

import deepweave as dw

torch.set_num_threads(1)  # small tensors: a second thread only waits on a busy machine


@pytest.fixture(scope="session")
def digits() -> dw.data.Data:
    return dw.data.load("digits")


@pytest.fixture
def batch() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(32, 6, generator=generator)
    return x, torch.randint(0, 3, (32,), generator=generator)
