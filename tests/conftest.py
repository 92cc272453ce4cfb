"""What tests of several parts need: a fixed seed, and small networks with nothing left at zero."""

import pytest
import torch

from todm_sb.nnet.transducer import Transducer


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def scatter_parameters(module, scale=0.2):
    """Moves every parameter off its initial value: zeros and ones hide mistakes."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(scale * torch.randn_like(p))
    return module


@pytest.fixture(name="scatter_parameters")
def _scatter_parameters():
    return scatter_parameters


@pytest.fixture
def make_transducer():
    """Builds a tiny network in evaluation mode; keywords go to the encoder."""

    def make(
        predictor="lstm",
        ctc=False,
        simple_joiner=False,
        dtype=torch.float32,
        seed=0,
        vocab_size=7,
        **encoder,
    ):
        torch.manual_seed(seed)
        network = Transducer(
            vocab_size=vocab_size,
            encoder={
                "n_features": 6,
                "d_model": 8,
                "ffn_dims": [12, 12, 12, 12],
                "n_heads": 4,
                "state_size": 3,
                "channels": [3, 4],
                "time_strides": [2, 2],
                **encoder,
            },
            predictor={"kind": predictor, "d_model": 6},
            d_joint=10,
            ctc=ctc,
            simple_joiner=simple_joiner,
        )
        return scatter_parameters(network.to(dtype)).eval()

    return make
