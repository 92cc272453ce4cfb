import pytest
import torch

from todm_sb.nnet import elastic
from todm_sb.nnet.elastic import ElasticFFN


@pytest.fixture
def ffn(scatter_parameters):
    return scatter_parameters(ElasticFFN(5, 12, dropout=0.3).double())


def silu(x):
    return x / (1 + torch.exp(-x))


@pytest.mark.parametrize("width", [1, 7, 12])
def test_a_width_uses_the_leading_hidden_units_alone(ffn, width):
    x = torch.randn(2, 3, 5, dtype=torch.double)
    expected = ffn.w_2.bias.expand(2, 3, 5).clone()
    for unit in range(width):
        hidden = silu((x * ffn.w_1.weight[unit]).sum(-1) + ffn.w_1.bias[unit])
        expected = expected + hidden.unsqueeze(-1) * ffn.w_2.weight[:, unit]
    torch.testing.assert_close(ffn.eval()(x, width), expected, rtol=1e-12, atol=1e-12)


def test_no_width_means_all(ffn):
    x = torch.randn(2, 5, dtype=torch.double)
    assert torch.equal(ffn.eval()(x), ffn(x, 12))


def test_units_out_of_use_get_no_gradient(ffn):
    ffn.eval()(torch.randn(4, 5, dtype=torch.double), 7).square().sum().backward()
    assert (ffn.w_1.weight.grad[7:] == 0).all()
    assert (ffn.w_1.bias.grad[7:] == 0).all()
    assert (ffn.w_2.weight.grad[:, 7:] == 0).all()
    assert (ffn.w_1.weight.grad[:7] != 0).any(1).all()


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("width", [30, 60, 120])
def test_the_fraction_dropped_is_in_proportion_to_the_width_where_adaptive(
    adaptive, width, monkeypatch
):
    ffn = ElasticFFN(4, 120, dropout=0.4, adaptive_dropout=adaptive).train()
    dropped = []

    def dropout(x, p, training, original=elastic.dropout):
        y = original(x, p, training)
        dropped.append((y == 0).double().mean().item())
        return y

    monkeypatch.setattr(elastic, "dropout", dropout)
    ffn(torch.randn(2000, 4), width)
    assert dropped == [pytest.approx(0.4 * width / 120 if adaptive else 0.4, abs=0.01)]


@pytest.mark.parametrize("width", [3, 6, 12])
def test_dropout_is_in_proportion_to_a_full_width_that_can_be_larger_than_the_layer(width):
    ffn = ElasticFFN(4, 12, dropout=0.4, dropout_width=48)
    assert ffn.dropout_of(width) == pytest.approx(0.4 * width / 48)
    constant = ElasticFFN(4, 12, dropout=0.4, adaptive_dropout=False, dropout_width=48)
    assert constant.dropout_of(width) == 0.4


def test_the_full_width_of_the_dropout_rule_is_the_layers_own_unless_told_otherwise():
    ffn = ElasticFFN(4, 12, dropout=0.4)
    assert ffn.dropout_width == 12
    assert ffn.dropout_of(12) == pytest.approx(0.4)


def test_the_full_width_of_the_dropout_rule_survives_repeated_extraction():
    small = ElasticFFN(4, 12, dropout=0.4, dropout_width=24).extract(6).extract(3)
    assert (small.d_hidden, small.dropout_width) == (3, 24)
    assert small.dropout_of(3) == pytest.approx(0.4 * 3 / 24)


def test_nothing_is_dropped_in_evaluation(ffn):
    x = torch.randn(6, 5, dtype=torch.double)
    ffn.eval()
    assert torch.equal(ffn(x), ffn(x))
    ffn.train()
    assert not torch.equal(ffn(x), ffn(x))


@pytest.mark.parametrize("width", [0, -1, 13])
def test_a_width_out_of_range_is_refused(ffn, width):
    with pytest.raises(ValueError, match=rf"{width} is outside 1\.\.12"):
        ffn(torch.randn(2, 5, dtype=torch.double), width)
    with pytest.raises(ValueError, match=rf"{width} is outside 1\.\.12"):
        ffn.extract(width)


@pytest.mark.parametrize("adaptive", [True, False])
@pytest.mark.parametrize("width", [1, 7, 12])
def test_an_extracted_layer_is_small_and_equal_also_in_its_dropout(adaptive, width):
    ffn = ElasticFFN(5, 12, dropout=0.3, adaptive_dropout=adaptive).double().train()
    small = ffn.extract(width)
    x = torch.randn(50, 5, dtype=torch.double)

    torch.manual_seed(1)
    expected = ffn(x, width)
    torch.manual_seed(1)
    assert torch.equal(small(x), expected)
    assert small.d_hidden == width
    assert sum(p.numel() for p in small.parameters()) == width * (2 * 5 + 1) + 5
    with torch.no_grad():
        ffn.w_1.weight.zero_()
    torch.manual_seed(1)
    assert torch.equal(small(x), expected)
