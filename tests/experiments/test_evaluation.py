"""Error rates of test sets, against a count of their own."""

import json

import numpy as np
import pytest
import soundfile
from sentencepiece import SentencePieceTrainer
from speechbrain.utils.edit_distance import accumulatable_wer_stats

from todm_sb.bundle.bundle import whole, write_bundle
from todm_sb.bundle.manifest import BundledSubnet
from todm_sb.cli import FAILED, OK, main
from todm_sb.dataio.manifest import Row
from todm_sb.experiments.compare.bootstrap import relative_difference
from todm_sb.experiments.evaluation import Evaluated, EvaluationSet, records_of, rows_of
from todm_sb.export.speechbrain import export_folder
from todm_sb.inference import SubnetASR
from todm_sb.supernet import count_parameters, extract_subnet
from todm_sb.training.error_rates import ErrorRates


@pytest.fixture
def manifest(tmp_path):
    """Three utterances of noise, one of them without a transcript, and one that is missing."""
    rng, lines = np.random.default_rng(0), ["ID,duration,wav,spk_id,wrds"]
    words = {"a": "ONE TWO", "b": "", "c": "SEVEN"}
    for name, said in words.items():
        path = tmp_path / f"{name}.wav"
        soundfile.write(path, 0.1 * rng.normal(size=16000), 16000)
        lines.append(f"{name},1.0,{path},s,{said}")
    (tmp_path / "test.csv").write_text("\n".join(lines) + "\n")
    lost = tmp_path / "nowhere.wav"
    (tmp_path / "lost.csv").write_text("\n".join([*lines, f"d,1.0,{lost},s,NINE SIX"]) + "\n")
    return tmp_path / "test.csv"


def evaluated(capsys, *argv, code=OK):
    assert main(["evaluate", *map(str, argv)]) == code
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def by_hand(bundle, subnet, folder):
    asr = SubnetASR.from_bundle(bundle, subnet)
    found = [asr.transcribe_file(str(folder / f"{x}.wav")).split() for x in "ac"]
    return accumulatable_wer_stats([["ONE", "TWO"], ["SEVEN"]], found)


def test_error_rates_are_those_counted_by_hand(bundle, bundle_parts, manifest, capsys):
    argv = [bundle, manifest, "--subnet", "max", "--subnet", "min", "--json"]
    (found,) = evaluated(capsys, *argv)
    assert found["test set"] == "test"
    for network in found["networks"]:
        stats = by_hand(bundle, network["network"], manifest.parent)
        subnet = bundle_parts["space"].named(network["network"])
        assert network["parameters"] == count_parameters(bundle_parts["model"], subnet)
        assert network["WER"] == pytest.approx(stats["WER"])
        assert network["insertions"] == pytest.approx(100 * stats["insertions"] / 3)
        assert network["utterances"] == 2
        assert network["left_out"] == {"empty transcript": 1}
    told = {"value", "low", "high", "unit", "units"}
    assert found["networks"][1]["WER difference"].keys() == told


def test_what_cannot_be_decoded_counts_as_deleted(bundle, manifest, capsys):
    lost = manifest.with_name("lost.csv")
    plain, found = evaluated(capsys, bundle, manifest, lost, "--json", code=FAILED)
    before, after = plain["networks"][0], found["networks"][0]
    assert after["undecodable"] == 1
    assert after["words"] == before["words"] + 2
    assert after["deletions"] == pytest.approx((before["deletions"] * 3 + 200) / 5)


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_audio_too_loud_to_be_any_is_named_and_counts_as_deleted(bundle, manifest, capsys, form):
    wav = manifest.with_name("c.wav")
    soundfile.write(wav, np.full(16000, 4e8), 16000, subtype="FLOAT")
    assert main(["evaluate", str(bundle), str(manifest), *form]) == FAILED
    told = capsys.readouterr()
    assert told.err == f"error: c: {wav} holds samples up to 4e+08, where full scale is 1\n"
    if form:
        assert json.loads(told.out)["networks"][0]["undecodable"] == 1


def test_so_does_what_has_no_audio_by_its_row_alone(bundle, manifest, capsys):
    row = f"d,0.0,{manifest.parent / 'a.wav'},s,NINE SIX\n"
    manifest.with_name("zero.csv").write_text(manifest.read_text() + row)
    argv = [bundle, manifest, manifest.with_name("zero.csv")]
    plain, found = evaluated(capsys, *argv, "--json", code=FAILED)
    before, after = plain["networks"][0], found["networks"][0]
    assert (after["undecodable"], after["utterances"]) == (1, 3)
    assert after["deletions"] == pytest.approx((before["deletions"] * 3 + 200) / 5)


def test_a_transcript_of_which_the_tokenizer_leaves_no_word_is_empty(
    bundle, manifest, capsys, monkeypatch
):
    rows = manifest.read_text() + f"z,1.0,{manifest.parent / 'a.wav'},s,\u200b\n"
    manifest.with_name("blank.csv").write_text(rows)
    argv = [bundle, manifest, manifest.with_name("blank.csv"), "--json"]
    plain, found = (x["networks"][0] for x in evaluated(capsys, *argv))
    assert found.pop("left_out") == {"empty transcript": 2}
    assert plain.pop("left_out") == {"empty transcript": 1}
    assert found == plain
    manifest.with_name("none.csv").write_text(f"{rows.splitlines()[0]}\n{rows.splitlines()[-1]}\n")
    monkeypatch.setattr("todm_sb.cli.evaluate.evaluate", None)  # before the first is decoded
    with pytest.raises(SystemExit):
        main(["evaluate", str(bundle), str(manifest), str(manifest.with_name("none.csv"))])
    assert "none: all transcripts are empty" in capsys.readouterr().err


def test_a_network_is_compared_with_another_and_all_is_written(
    bundle, manifest, tmp_path, capsys, monkeypatch
):
    argv = [bundle, manifest, "--against", bundle, "--against-subnet", "min"]
    # It may be a run's folder, with the files of its own tests.
    theirs = {"results_test.json", "wer_test_max.txt"}
    (tmp_path / "out").mkdir()
    for name in theirs:
        (tmp_path / "out" / name).write_text("theirs")
    assert main(["evaluate", *map(str, argv), "--output", str(tmp_path / "out")]) == OK
    table = capsys.readouterr().out
    assert f"| {bundle} min " in table
    assert "Error rates of 2 utterances, 3 words; 1 left out: empty transcript." in table
    assert main(["evaluate", str(bundle), str(manifest), "--alignments"]) == OK
    assert "%WER" in capsys.readouterr().out
    names = {path.name for path in (tmp_path / "out").glob("[!.]*")}
    alignments = {"alignments_test_against_min.txt", "alignments_test_max.txt"}
    assert names == {"evaluation_test.json", *alignments, *theirs}
    assert all("ONE" in (tmp_path / "out" / name).read_text() for name in alignments)
    # Once more, but what is not its own: told before anything is decoded.
    (tmp_path / "out" / "evaluation_test.json").write_text("mine")
    monkeypatch.setattr("todm_sb.cli.evaluate.evaluate", None)
    with pytest.raises(SystemExit):
        main(["evaluate", *map(str, argv), "--output", str(tmp_path / "out")])
    assert "evaluation_test.json was not written by this command" in capsys.readouterr().err


def test_files_are_called_by_the_id_of_a_subnet_however_long_its_json(
    bundle, bundle_parts, manifest, tmp_path, capsys
):
    subnet = bundle_parts["space"].min
    argv = [bundle, manifest, "--subnet", subnet.to_json() + " " * 300]
    assert main(["evaluate", *map(str, argv), "--output", str(tmp_path / "out")]) == OK
    assert (tmp_path / "out" / f"alignments_test_{subnet.id}.txt").is_file()


def test_a_network_without_subnets_goes_by_its_own_name(bundle_parts, manifest, tmp_path, capsys):
    space = bundle_parts.pop("space")
    parts = {**bundle_parts, "model": extract_subnet(bundle_parts["model"], space.min)}
    params = count_parameters(parts["model"])
    subnets = [BundledSubnet("tiny", whole(parts["model"]), {"params": params})]
    write_bundle(tmp_path / "bundle", **parts, subnets=subnets)
    export_folder(tmp_path / "small", **parts, hop=160)
    export_folder(tmp_path / "all", **bundle_parts, space=space, hop=160)
    for place, name in (("bundle", "tiny"), ("small", "small"), ("all", "max")):
        argv = [tmp_path / place, manifest, "--trusted", "--output", tmp_path / f"of {place}"]
        (found,) = evaluated(capsys, *argv, "--json")
        assert [network["network"] for network in found["networks"]] == [name]
        assert (tmp_path / f"of {place}" / f"alignments_test_{name}.txt").is_file()
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "bundle"), str(manifest), "--subnet", "max"])
    assert "holds the single subnet tiny, not 'max'" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["evaluate", str(tmp_path / "none"), str(manifest), "--trusted"])
    assert "none does not exist" in capsys.readouterr().err


AB = ["--subnet", "a+b", "--subnet", "a_b"]


def test_what_files_would_be_called_matters_only_where_there_are_some(bundle, manifest, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", str(bundle), str(manifest), *AB])
    assert "unknown subnet 'a+b'" in capsys.readouterr().err


def test_all_networks_are_found_before_any_is_decoded_with(bundle, manifest, capsys, monkeypatch):
    monkeypatch.setattr("todm_sb.cli.evaluate.evaluate", None)
    for given in (["--subnet", "max", "--subnet", "mni"], ["--against-subnet", "mni"]):
        against = ["--against", str(bundle)] if "--against-subnet" in given else []
        with pytest.raises(SystemExit):
            main(["evaluate", str(bundle), str(manifest), *against, *given])
        assert "unknown subnet 'mni'" in capsys.readouterr().err


def test_what_is_decoded_is_printed_whatever_becomes_of_the_files(
    bundle, manifest, tmp_path, capsys, monkeypatch
):
    manifest.with_name("again.csv").write_text(manifest.read_text())
    monkeypatch.setattr("todm_sb.cli.evaluate.write_own", lambda *_: 1 / 0)
    argv = [str(bundle), str(manifest), str(manifest.with_name("again.csv"))]
    with pytest.raises(ZeroDivisionError):
        main(["evaluate", *argv, "--output", str(tmp_path / "out"), "--json"])
    told = [json.loads(line)["test set"] for line in capsys.readouterr().out.splitlines()]
    assert told == ["test", "again"]
    with pytest.raises(SystemExit):
        main(["evaluate", "nowhere", *argv[1:], "--output", str(tmp_path / "a" / "typo")])
    assert not (tmp_path / "a").exists()


def test_networks_are_judged_by_the_same_words(
    bundle, bundle_parts, manifest, tmp_path, capsys, monkeypatch
):
    """Of a transcript of spaces of no width one tokenizer leaves a word, the other none."""
    SentencePieceTrainer.train(
        sentence_iterator=iter(["ZERO ONE SIX", "SEVEN TWO FIVE NINE", "THREE FOUR EIGHT"]),
        model_prefix=str(tmp_path / "as_it_is"),
        model_type="char",
        bos_id=-1,
        eos_id=-1,
        normalization_rule_name="identity",
    )
    parts = {**bundle_parts, "tokenizer_path": tmp_path / "as_it_is.model"}
    write_bundle(tmp_path / "other", **parts)
    argv = ["evaluate", str(bundle), str(manifest), "--against", str(tmp_path / "other")]
    assert main(argv) == OK
    manifest.write_text(manifest.read_text() + f"z,1,{tmp_path / 'a.wav'},s,ONE \u200b SIX\n")
    monkeypatch.setattr("todm_sb.cli.evaluate.evaluate", None)
    with pytest.raises(SystemExit):
        main(argv)
    told = f"the transcript of z is 3 words for {tmp_path / 'other'} max and 2 for {bundle} max"
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("speakers", "unit", "units"),
    [
        ("sttsu", "speakers", [[0, 3], [1, 2], [4]]),
        ("     ", "utterances", [[0], [1], [2], [3], [4]]),
        ("sssss", "utterances", [[0], [1], [2], [3], [4]]),
    ],
)
def test_speakers_are_drawn_where_the_manifest_tells_them(speakers, unit, units):
    rows = tuple(Row(str(i), 1.0, "", s.strip(), "", None) for i, s in enumerate(speakers))
    networks, errors = [], {"a": [0, 2, 1, 3, 0], "b": [1, 2, 0, 1, 2]}
    for name, n_wrong in errors.items():
        rates = ErrorRates([name])
        for i, n in enumerate(n_wrong):
            rates.append(name, [str(i)], [["X"] * n + ["ONE"] * (4 - n)], [["ONE"] * 4])
        networks.append(Evaluated(name, rates, EvaluationSet("test", rows), []))
    ours, theirs = ([sum(errors[x][i] for i in of) for of in units] for x in "ba")
    expected = {**relative_difference(ours, theirs).to_dict(), "unit": unit, "units": len(units)}
    records = records_of(networks, {"a": 1, "b": 2})
    assert records[1]["WER difference"] == expected
    assert rows_of(records)[1][f"WER difference %, {len(units)} {unit}"].startswith("+0.0 (")


def test_two_runs_of_other_letters_need_to_be_told_which(bundle, manifest, tmp_path, capsys):
    for case in ("upper", "lower"):
        (tmp_path / case).mkdir()
        (tmp_path / case / "hyperparams.yaml").write_text(f"letter_case: {case}\n")
        (tmp_path / case / "history.jsonl").touch()
    upper, lower = tmp_path / "upper", tmp_path / "lower"
    with pytest.raises(SystemExit):
        main(["evaluate", str(upper), str(manifest), "--against", str(lower)])
    told = capsys.readouterr().err
    assert f"{upper} with upper and {lower} with lower letters" in told
    assert "--letter-case" in told


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.csv"], "nowhere.csv does not exist"),
        (["TEST", "TEST"], "two manifests have the same name"),
        (["TEST", "--against-subnet", "min"], "--against-subnet is of --against"),
        (["TEST", "--subnet", "min", "--subnet", "min"], "min is named twice"),
        (["TEST", *AB, "--output", "out"], "--output would write alignments_test_a_b.txt twice"),
        (["TEST", "--subnet", "{"], "not the JSON of a subnet"),
        (["TEST", "--json", "--alignments"], "not allowed with argument --json"),
    ],
)
def test_what_makes_no_sense_is_one_line(bundle, manifest, capsys, monkeypatch, options, message):
    monkeypatch.setattr("todm_sb.cli.evaluate.load", None)  # nothing is loaded before
    argv = [str(manifest) if x == "TEST" else x for x in options]
    with pytest.raises(SystemExit):
        main(["evaluate", str(bundle), *argv])
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_parts_of_files_of_any_rate_and_json_are_decoded_as_in_training(bundle, tmp_path, capsys):
    """Two parts of a stereo file of 48 kHz, against files of their own."""
    rng = np.random.default_rng(1)
    both = 0.1 * rng.normal(size=(96000, 2))
    soundfile.write(tmp_path / "both.wav", both, 48000)
    entries, lines = {}, ["ID,duration,wav,spk_id,wrd"]
    for i, said in enumerate(("ONE TWO", "SEVEN")):
        soundfile.write(tmp_path / f"{i}.wav", both[48000 * i : 48000 * (i + 1)].mean(1), 48000)
        lines.append(f"{i},1.0,{i}.wav,s,{said}")
        wav = {"file": "{data_root}/both.wav", "start": 48000 * i, "stop": 48000 * (i + 1)}
        entries[str(i)] = {"wav": wav, "duration": 1.0, "text": said.lower()}
    (tmp_path / "own.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "parts.json").write_text(json.dumps(entries))
    (whole,) = evaluated(capsys, bundle, tmp_path / "own.csv", "--json")
    options = ["--data-root", tmp_path, "--text-column", "text", "--letter-case", "upper"]
    (parts,) = evaluated(capsys, bundle, tmp_path / "parts.json", "--json", *options)
    for key in ("WER", "CER", "utterances", "words", "undecodable"):
        assert parts["networks"][0][key] == whole["networks"][0][key]
    assert whole["networks"][0]["undecodable"] == 0
