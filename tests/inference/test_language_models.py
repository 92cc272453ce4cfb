"""RNN language models from the folders that SpeechBrain leaves, against the slow definition."""

import functools
import json
import math
import shutil

import pytest
import soundfile
import torch
from sentencepiece import SentencePieceProcessor
from speechbrain.lobes.models.RNNLM import RNNLM
from speechbrain.utils.checkpoints import Checkpointer

from todm_sb.cli import OK, main
from todm_sb.inference import SubnetASR
from todm_sb.inference.decoding import Decoding
from todm_sb.inference.language_models import load_language_model, rnn_fusion
from todm_sb.utils.errors import ConfigError

TEXTS = ["ONE TWO", "SEVEN ONE", "SEVEN SEVEN ONE", "TWO SEVEN ONE"]
SIZES = {
    "embedding_dim": 6,
    "dropout": 0.0,
    "rnn_layers": 2,
    "rnn_neurons": 8,
    "dnn_blocks": 1,
    "dnn_neurons": 7,
}
NETWORK = """
    output_neurons: {n}
    activation: !name:torch.nn.LeakyReLU
""" + "".join(f"    {key}: {value}\n" for key, value in SIZES.items())

# As the recipe of SpeechBrain's LibriSpeech language model leaves it in its output_folder: the
# pretrainer fetches the tokenizer alone, and the network does not return its states.
TRAINED = """
save_folder: nowhere/save
model: !new:speechbrain.lobes.models.RNNLM.RNNLM{network}
modules:
    model: !ref <model>
checkpointer: !new:speechbrain.utils.checkpoints.Checkpointer
    checkpoints_dir: nowhere/save
    recoverables:
        model: !ref <model>
train_logger: !new:speechbrain.utils.train_logger.FileTrainLogger
    save_file: nowhere/train_log.txt
tokenizer: !new:sentencepiece.SentencePieceProcessor
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    collect_in: nowhere/save
    loadables:
        tokenizer: !ref <tokenizer>
    paths:
        tokenizer: https://nowhere.invalid/tokenizer.model
"""

# As the Hub has networks of SpeechBrain's with a language model: the weights lie beside the YAML,
# whatever repository the paths name.
PUBLISHED = """
pretrained_path: nowhere/asr-rnnlm
lm_model: !new:speechbrain.lobes.models.RNNLM.RNNLM{network}    return_hidden: True
other: !new:torch.nn.Linear [2, 2]
pretrainer: !new:speechbrain.utils.parameter_transfer.Pretrainer
    collect_in: nowhere
    loadables:
        lm: !ref <lm_model>
        asr: !ref <other>
    paths:
        lm: !ref <pretrained_path>/lm.ckpt
        asr: !ref <pretrained_path>/asr.ckpt
"""


@pytest.fixture
def tokenizer(char_tokenizer_path):
    return SentencePieceProcessor(model_file=str(char_tokenizer_path))


@pytest.fixture
def trained(tokenizer):
    """SpeechBrain's RNNLM after a few steps on the texts, each from the start symbol 0 on."""
    torch.manual_seed(1)
    lm = RNNLM(tokenizer.vocab_size(), **SIZES)
    optimizer = torch.optim.Adam(lm.parameters(), 0.03)
    losses = []
    for _ in range(15):
        loss = 0.0
        for labels in map(tokenizer.encode_as_ids, TEXTS):
            logits = lm(torch.tensor([[0, *labels]]))
            loss = loss + torch.nn.functional.cross_entropy(logits[0], torch.tensor([*labels, 0]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    return lm.eval()


@pytest.fixture(params=["trained", "published"])
def folder(request, trained, tokenizer, tmp_path, monkeypatch):
    """A folder of the model, in either form."""
    monkeypatch.chdir(tmp_path)
    folder, network = tmp_path / "lm", NETWORK.format(n=tokenizer.vocab_size())
    folder.mkdir()
    if request.param == "published":
        (folder / "hyperparams.yaml").write_text(PUBLISHED.format(network=network))
        torch.save(trained.state_dict(), folder / "lm.ckpt")
        return folder
    (folder / "hyperparams.yaml").write_text(TRAINED.format(network=network))
    checkpointer = Checkpointer(folder / "save", {"model": trained})
    checkpointer.save_checkpoint({"loss": 1.0})
    best = {key: value.clone() for key, value in trained.state_dict().items()}
    with torch.no_grad():
        trained.out.w.bias.add_(torch.randn(tokenizer.vocab_size()))  # a later, worse one
    checkpointer.save_checkpoint({"loss": 2.0})
    trained.load_state_dict(best)
    return folder


def log_prob(lm, labels):
    """Of labels one after another, read in one go."""
    logits = lm(torch.tensor([[0, *labels[:-1]]]))
    return logits[0].log_softmax(-1)[range(len(labels)), list(labels)].sum().item()


@torch.no_grad()
def test_a_folder_gives_the_model_that_was_trained(folder, trained, tmp_path):
    lm = load_language_model(folder, trusted=True)
    labels = torch.tensor([[0, 3, 5, 5, 2]])
    logits, _ = lm(labels)
    torch.testing.assert_close(logits, trained(labels))
    assert not (tmp_path / "nowhere").exists()


@torch.no_grad()
def test_a_search_adds_its_log_probabilities(folder, trained, bundle, tokenizer):
    asr, weight = SubnetASR.from_bundle(bundle), 0.8
    lm = load_language_model(folder, trusted=True)
    searcher = asr.recogniser(Decoding(64, 64, lm=lm, lm_weight=weight)).searcher
    plain = asr.recogniser(Decoding(64, 64)).searcher
    width = asr.mods.encoder.model.config["encoder"]["d_model"]
    encoded, lengths = torch.randn(1, 1, width), torch.tensor([1])
    # One frame of one label at most, and all hypotheses in the beam: this is all there is.
    for s in (searcher, plain):
        s.max_symbols, s.beam_size, s.nbest = 1, 64, 64
    ((*fused,),), ((*alone,),) = (s.search(encoded, lengths) for s in (searcher, plain))
    assert len(alone) == tokenizer.vocab_size()
    before = {tuple(h.tokens): h.score for h in alone}
    gain = functools.partial(log_prob, trained)
    expected = {key: x + (weight * gain(key) if key else 0) for key, x in before.items()}
    assert {tuple(h.tokens): h.score for h in fused} == pytest.approx(expected, abs=1e-4)


def test_the_command_transcribes_with_it(folder, bundle, tmp_path, capsys):
    path = tmp_path / "noise.wav"
    soundfile.write(path, 0.1 * torch.randn(16000).numpy(), 16000)
    options = ["--beam-size", "4", "--format", "json", "--nbest", "2"]
    command = ["transcribe", str(path), "--model", str(bundle), *options]

    def best(*more):
        assert main([*command, *more]) == OK
        (found,) = json.loads(capsys.readouterr().out)
        return [x["text"] for x in found["segments"][0]["nbest"]]

    with_lm = best("--lm", str(folder), "--trusted", "--lm-weight", "2")
    assert with_lm != best()
    decoding = Decoding(4, 2, lm=load_language_model(folder, trusted=True), lm_weight=2.0)
    (found,) = SubnetASR.from_bundle(bundle).transcribe([path], decoding)
    assert with_lm == [x.text for x in found.segments[0].alternatives]


def test_a_folder_without_weights_is_refused(folder):
    shutil.rmtree(folder / "save", ignore_errors=True)
    (folder / "lm.ckpt").unlink(missing_ok=True)
    with pytest.raises(ConfigError, match=r"lm\.ckpt, the weights of|no checkpoint in save"):
        load_language_model(folder, trusted=True)


def test_weights_of_another_network_are_refused(folder):
    path = folder / "hyperparams.yaml"
    path.write_text(path.read_text().replace("rnn_neurons: 8", "rnn_neurons: 9"))
    with pytest.raises(ConfigError, match=r"hyperparams\.yaml: Error\(s\) in loading"):
        load_language_model(folder, trusted=True)


@pytest.mark.parametrize("damage", [b"", b"hello", "half", torch.nn.Linear(1, 1), [1]])
def test_weights_that_are_none_are_named(folder, damage):
    for path in [*folder.glob("lm.ckpt"), *folder.glob("save/CKPT*/model.ckpt")]:
        if damage == "half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif isinstance(damage, bytes):
            path.write_bytes(damage)
        else:
            torch.save(damage, path)
    with pytest.raises(ConfigError, match=rf"{path.name} (is damaged, or holds more|holds list)"):
        load_language_model(folder, trusted=True)


def not_finite():
    lm = RNNLM(17, **SIZES, return_hidden=True)
    with torch.no_grad():
        lm.embedding.Embedding.weight[5] = math.nan
    return lm


class Stateless(torch.nn.Module):
    def forward(self, labels, hx=None):
        return torch.zeros(len(labels), 1, 17), None


def test_a_yaml_without_a_network_is_refused(tmp_path):
    (tmp_path / "hyperparams.yaml").write_text("model: 3\n")
    with pytest.raises(ConfigError, match="has no network named lm_model, lm, model"):
        load_language_model(tmp_path, trusted=True)


@pytest.mark.parametrize(
    ("lm", "message"),
    [
        (RNNLM(9, **SIZES, return_hidden=True), "has 9 labels, the network 17"),
        (RNNLM(17, **SIZES), "RNNLM is no RNN language model"),
        (torch.nn.Linear(2, 17), "Linear is no RNN language model"),
        (not_finite(), "weights that are no finite numbers"),
        (Stateless(), "Stateless keeps no state"),
    ],
)
def test_a_model_that_does_not_fit_is_refused(lm, message):
    with pytest.raises(ConfigError, match=message):
        rnn_fusion(lm, 0.3, 17)
