import pytest
import torch

from todm_sb.nnet.predictor import LSTMPredictor, StatelessPredictor, start_with_blank

BUILDERS = {
    "lstm": lambda: LSTMPredictor(7, 6),
    "lstm of two layers": lambda: LSTMPredictor(7, 6, n_layers=2),
    "stateless": lambda: StatelessPredictor(7, 6),
    "stateless of context 1": lambda: StatelessPredictor(7, 6, context=1),
    "stateless of context 4": lambda: StatelessPredictor(7, 6, context=4),
}


@pytest.fixture(params=BUILDERS, ids=lambda name: name.replace(" ", "-"))
def predictor(request, scatter_parameters):
    return scatter_parameters(BUILDERS[request.param]().double()).eval()


def lstm(module, labels):
    """One layer of LSTM by its equations, on one utterance."""
    weights = module.lstm
    h = c = torch.zeros(weights.hidden_size, dtype=torch.double)
    outputs = []
    for label in labels:
        gates = (
            weights.weight_ih_l0 @ module.embedding.weight[label]
            + weights.bias_ih_l0
            + weights.weight_hh_l0 @ h
            + weights.bias_hh_l0
        )
        i, f, g, o = gates.chunk(4)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        h = torch.sigmoid(o) * torch.tanh(c)
        outputs.append(h)
    return torch.stack(outputs)


def stateless(module, labels):
    """The convolution by definition, on one utterance, blanks before its start."""
    context = module.conv.kernel_size[0]
    past = [module.blank] * (context - 1) + list(labels)
    outputs = []
    for u in range(len(labels)):
        y = sum(
            module.conv.weight[:, 0, k] * module.embedding.weight[past[u + k]]
            for k in range(context)
        )
        outputs.append(y.clamp(min=0))
    return torch.stack(outputs)


@torch.no_grad()
def test_an_lstm_predictor_is_an_lstm_on_embeddings(scatter_parameters):
    module = scatter_parameters(BUILDERS["lstm"]().double()).eval()
    labels = torch.tensor([[0, 3, 1, 6], [0, 2, 2, 5]])
    outputs, _ = module(labels)
    for row in range(2):
        torch.testing.assert_close(outputs[row], lstm(module, labels[row]))


@pytest.mark.parametrize("context", [1, 2, 4])
@torch.no_grad()
def test_a_stateless_predictor_is_a_convolution_over_the_last_labels(scatter_parameters, context):
    module = scatter_parameters(StatelessPredictor(7, 6, context=context).double()).eval()
    labels = torch.tensor([[0, 3, 1, 6], [0, 2, 2, 5]])
    outputs, _ = module(labels)
    for row in range(2):
        expected = stateless(module, labels[row].tolist())
        torch.testing.assert_close(outputs[row], expected)


@torch.no_grad()
def test_running_label_by_label_is_running_all_at_once(predictor):
    labels = torch.randint(0, 7, (3, 9))
    whole, end = predictor(labels)
    state = predictor.initial_state(3)
    for u in range(9):
        output, state = predictor(labels[:, u : u + 1], state)
        torch.testing.assert_close(output[:, 0], whole[:, u])
    for got, expected in zip(state, end, strict=True):
        torch.testing.assert_close(got, expected)


@torch.no_grad()
def test_a_step_is_the_forward_of_one_label(predictor):
    labels = torch.randint(0, 7, (3, 9))
    whole, end = predictor(labels)
    state = None
    for u in range(9):
        output, state = predictor.step(labels[:, u], state)
        torch.testing.assert_close(output, whole[:, u])
    for got, expected in zip(state, end, strict=True):
        torch.testing.assert_close(got, expected)


@torch.no_grad()
def test_the_initial_state_is_the_default(predictor):
    labels = torch.randint(0, 7, (3, 4))
    assert torch.equal(predictor(labels, predictor.initial_state(3))[0], predictor(labels)[0])


@torch.no_grad()
def test_states_are_selected_and_repeated_along_their_first_axis(predictor):
    labels = torch.randint(0, 7, (3, 4))
    _, state = predictor(labels)
    rows = torch.tensor([2, 0, 2, 1])
    following = torch.tensor([[1], [4], [5], [6]])
    picked, _ = predictor(following, tuple(s[rows] for s in state))
    for i, row in enumerate(rows.tolist()):
        alone, _ = predictor(torch.cat([labels[row], following[i]]).unsqueeze(0))
        torch.testing.assert_close(picked[i, 0], alone[0, -1])


@torch.no_grad()
def test_a_stateless_predictor_sees_the_last_two_labels_alone(scatter_parameters):
    module = scatter_parameters(StatelessPredictor(7, 6)).eval()
    outputs, _ = module(torch.tensor([[1, 2, 3, 4], [5, 6, 3, 4], [1, 2, 6, 4]]))
    assert torch.equal(outputs[0, -1], outputs[1, -1])
    assert not torch.equal(outputs[0, -1], outputs[2, -1])


@torch.no_grad()
def test_an_lstm_predictor_sees_all_labels(scatter_parameters):
    module = scatter_parameters(LSTMPredictor(7, 6)).eval()
    outputs, _ = module(torch.tensor([[1, 2, 3, 4], [5, 2, 3, 4]]))
    assert not torch.equal(outputs[0, -1], outputs[1, -1])


def test_a_blank_starts_the_labels():
    assert start_with_blank(torch.tensor([[3, 4]]), 0).tolist() == [[0, 3, 4]]
    assert start_with_blank(torch.zeros(2, 0, dtype=torch.long), 5).tolist() == [[5], [5]]
