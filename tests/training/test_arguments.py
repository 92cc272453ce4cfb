"""A text on the command line is the very text that training gets, and all else is YAML."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from todm_sb.training.arguments import parse_arguments, run_option_arguments
from todm_sb.training.recipe import Recipe, load_text
from todm_sb.training.runs import relocate
from todm_sb.utils.errors import ConfigError

RECIPE = """
seed: 1234
output_folder: !ref results/mini/<seed>
save_folder: !ref <output_folder>/save
manifests: !ref <output_folder>/manifests
data_folder: !PLACEHOLDER
dev_split: dev
valid_csv: !ref <manifests>/<dev_split>.csv
test_splits: [test-clean]
held_out_speaker: null
mask_after: null
lr: 0.05
strict: False
search_space: {n_layers: 2, widths: [1, 2]}
named: {wide: {layers: [0]}, deep: null}
opt_class: !name:torch.optim.SGD
    lr: !ref <lr>
loggers:
    - !new:collections.OrderedDict
        save_file: !ref <save_folder>/log.txt
        folder: !ref <data_folder>
"""

NASTY = [
    *("hs/run #2", "2026-11-26", "010", "1e3", "null", "[1]", "yes", "a: b", "*x", "&x", "%x"),
    *("'q'", '"q"', 'a"b', "back\\slash", "\\n", " lead", "trail ", "é", "数", "a\nb", "\t", "(1)"),
    *("<seed>", "5 #x", "0/0", "1+1", "'a' # b", "!x y", "{a}", "- a", "? a", "|", ">", "@a", "`a"),
    *("a=b", "--x", "-5", "=", "a,b", "\x85", "\u2028", "\ufeffx", "TEXT_0_OF_RECIPE", "x" * 300),
    *("...", "---", "~x~", "None", "true", "1_000", "1:30", ".inf", "$HOME", "(a, b)", "a  b" * 40),
]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=12),
    st.text(string.printable + "é\x85\u2028", min_size=1, max_size=16),
).filter(lambda text: not text.startswith("~"))


@pytest.fixture
def recipe(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE)
    return path


def loaded(recipe, *arguments):
    return parse_arguments([str(recipe), "--data_folder=data", *arguments])[0].load()


def test_paths_of_hyperparams_yaml_are_absolute_in_all_that_refers_to_them(
    recipe, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    given = ("--data_folder=data", "--dev_split=data", "--save_folder=ck/a")
    read, _ = parse_arguments([str(recipe), *given])
    hparams = load_text(read.text(whole_paths=True), "hyperparams.yaml")
    assert hparams["valid_csv"] == f"{tmp_path}/results/mini/1234/manifests/data.csv"
    expected = {"save_file": f"{tmp_path}/ck/a/log.txt", "folder": f"{tmp_path}/data"}
    assert dict(hparams["loggers"][0]) == expected
    assert hparams["dev_split"] == "data"  # which is no path, though called as one


MORE = """
output_folder: results/a/1
data_folder: data
noise_file: noise.csv
test_csvs: [talk.csv, b/dev.csv]
name: !ref results/<data_folder>/1
joined: !apply:os.path.join [!ref <data_folder>, !ref <noise_file>]
nested: {csv_file: !ref <data_folder>/<noise_file>, named: [data, noise.csv], log: results/a/1/log}
"""


def test_in_hyperparams_yaml_a_path_within_another_text_is_as_it_was_trained(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "recipe.yaml").write_text(MORE)
    read = Recipe(tmp_path / "recipe.yaml")
    hparams = load_text(read.text(whole_paths=True), "hyperparams.yaml")
    assert hparams["test_csvs"] == [f"{tmp_path}/talk.csv", f"{tmp_path}/b/dev.csv"]
    assert (hparams["name"], hparams["joined"]) == ("results/data/1", "data/noise.csv")
    assert hparams["nested"] == {
        "csv_file": f"{tmp_path}/data/noise.csv",
        "named": ["data", "noise.csv"],
        "log": f"{tmp_path}/results/a/1/log",
    }


def check_texts(recipe, output, data, dev):
    """Paths, in all that refers to them, in what is saved, and in what is loaded from that."""
    given = [f"--output_folder={output}", f"--data_folder={data}", f"--dev_split={dev}"]
    read, _ = parse_arguments([str(recipe), *given])
    for hparams in (read.load(), load_text(read.text(), "hyperparams.yaml")):
        assert (hparams["output_folder"], hparams["data_folder"]) == (output, data)
        assert hparams["save_folder"] == f"{output}/save"
        assert hparams["valid_csv"] == f"{output}/manifests/{dev}.csv"
        expected = {"save_file": f"{output}/save/log.txt", "folder": data}
        assert dict(hparams["loggers"][0]) == expected
        assert type(hparams["output_folder"]) is str
    assert read.settings()["valid_csv"] == hparams["valid_csv"]


@pytest.mark.parametrize("texts", zip(*3 * [iter(NASTY)], strict=True))
def test_paths_are_what_was_given(recipe, texts):
    check_texts(recipe, *texts)


@settings(max_examples=15, deadline=None)
@given(texts=st.tuples(TEXTS, TEXTS, TEXTS))
def test_any_paths_are_what_was_given(texts, tmp_path_factory):
    recipe = tmp_path_factory.mktemp("r") / "recipe.yaml"
    recipe.write_text(RECIPE)
    check_texts(recipe, *texts)


@pytest.mark.parametrize("text", ["hs/run #2", "010", "<seed>", "(1)", "'a' # b", "%41?"])
def test_a_run_that_was_moved_to_any_path_is_loaded_there(recipe, tmp_path, text):
    saved = parse_arguments([str(recipe), "--data_folder=d", "--output_folder=was #1"])[0].text()
    hparams = load_text(relocate(saved, tmp_path / text), "hyperparams.yaml")
    assert hparams["valid_csv"] == f"{tmp_path / text}/manifests/dev.csv"
    assert hparams["loggers"][0]["save_file"] == f"{tmp_path / text}/save/log.txt"


def test_items_of_a_list_of_texts_are_texts(recipe):
    found = loaded(recipe, "--test_splits=[010, 1e3, null, 2026-11-26, yes, 'a b', dev-clean]")
    wanted = ["010", "1e3", "null", "2026-11-26", "yes", "a b", "dev-clean"]
    assert found["test_splits"] == wanted
    assert loaded(recipe, "--test_splits=[]")["test_splits"] == []


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("lr", "1e-3", 0.001),
        ("lr", "1.e-3", 0.001),
        ("lr", "inf", float("inf")),
        ("seed", "7", 7),
        ("strict", "True", True),
        ("strict", "maybe", "maybe"),
        ("held_out_speaker", "null", None),
        ("held_out_speaker", "lucas", "lucas"),
        ("held_out_speaker", "010", "010"),
        ("held_out_speaker", "1e3 m #c", "1e3 m #c"),
        ("mask_after", "500", 500),
        ("mask_after", "null", None),
        ("mask_after", "-1", "-1"),  # settings.py refuses it
        ("search_space", "{widths: [3]}", {"n_layers": 2, "widths": [3]}),
        ("search_space", "null", None),
        ("named", "{}", {}),
        ("named", "{wide: null}", {"wide": None, "deep": None}),
        ("named", "{deep: {layers: [1]}}", {"wide": {"layers": [0]}, "deep": {"layers": [1]}}),
    ],
)
def test_what_is_no_text_is_yaml(recipe, key, text, value):
    for arguments in ([f"--{key}={text}"], [f"--{key}", text]):
        found = loaded(recipe, *arguments)[key]
        assert (found, type(found)) == (value, type(value))


def test_what_a_base_has_as_null_can_be_a_mapping(recipe):
    own = recipe.with_name("own.yaml")
    own.write_text("base: recipe.yaml\nmask_after: {a: 1}\n")
    assert loaded(own)["mask_after"] == {"a": 1}


def test_another_class_takes_its_own_arguments_alone(recipe):
    found = loaded(recipe, "--opt_class=!name:torch.optim.AdamW {weight_decay: 0.5}")["opt_class"]
    assert found.func.__name__ == "AdamW"
    assert found.keywords == {"weight_decay": 0.5}
    same = loaded(recipe, "--opt_class={momentum: 0.5}", "--lr=0.25")["opt_class"]
    assert same.func.__name__ == "SGD"
    assert same.keywords == {"lr": 0.25, "momentum": 0.5}


def test_a_home_is_found_in_paths_alone(recipe, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = loaded(recipe, "--output_folder=~/run", "--held_out_speaker=~/run")
    assert found["save_folder"] == "/home/me/run/save"
    assert found["held_out_speaker"] == "~/run"
    recipe.write_text(RECIPE.replace("!PLACEHOLDER", "~/data"))
    assert Recipe(recipe).load()["data_folder"] == "/home/me/data"


def test_a_switch_needs_no_value(recipe):
    assert loaded(recipe, "--strict")["strict"] is True
    assert loaded(recipe, "--strict", "--lr=1")["strict"] is True
    assert loaded(recipe, "--strict", "False")["strict"] is False


def test_options_of_speechbrain_are_told_from_overrides(recipe):
    argv = ["--device", "cpu", "--data_folder", "d", "--precision=bf16", "--noprogressbar"]
    read, options = parse_arguments([str(recipe), *argv, "--optimizer_step_limit=3"])
    assert dict(read.overrides) == {"data_folder": "d"}
    assert (options.device, options.precision, options.noprogressbar) == ("cpu", "bf16", True)
    assert options.optimizer_step_limit == 3
    assert options.overridden_args == {
        *("device", "precision", "noprogressbar", "optimizer_step_limit"),
    }
    again = parse_arguments([str(recipe), *run_option_arguments(options)])[1]
    assert again == options


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lr=1", "--lr", "2"], "--lr is given twice"),
        (["--device=cpu", "--device", "cpu"], "--device is given twice"),
        (["--sed=1"], r"has no key 'sed'; do you mean --seed\?"),
        (["--devise=cpu"], r"do you mean --device\?"),
        (["--dev=cpu"], "has no key 'dev'"),
        (["--precision=fp8"], "--precision: invalid choice: 'fp8'"),
        (["--debug_batches=x"], "invalid int value: 'x'"),
        (["--device"], "expected one argument"),
        (["stray"], "argument 'stray' is not understood"),
        (["--lr=1", "2"], "argument '2' is not understood"),
        (["--lr"], "--lr needs a value"),
        (["--output_folder="], "--output_folder must not be empty"),
        (["--output_folder=\udcff"], "is not UTF-8"),
        (["--search_space=["], "not usable YAML"),
        (["--lr=*x"], "not usable YAML"),
        (["--lr=%x"], "not usable YAML"),
        (["--lr=" + "9" * 5000], "not usable YAML"),
        (["--lr={a: 1}"], "lr: .*cannot be combined with 0.05"),
        (["--"], "not understood"),
    ],
)
def test_what_is_not_understood_is_one_line(recipe, arguments, message):
    with pytest.raises(ConfigError, match=message) as caught:
        loaded(recipe, *arguments)
    assert str(caught.value).isprintable()


def test_what_is_made_of_a_recipe_is_of_one_state_of_its_file(recipe):
    read, _ = parse_arguments([str(recipe), "--data_folder=data"])
    settings = read.settings()
    recipe.write_text(RECIPE.replace("lr: 0.05", "lr: 0.5"))
    assert read.load()["lr"] == read.settings()["lr"] == settings["lr"] == 0.05
    assert "lr: 0.05" in read.text()
    assert loaded(recipe)["lr"] == 0.5


def test_no_recipe_is_one_line(tmp_path):
    (tmp_path / "list.yaml").write_text("[1]")
    for argv, message in (
        ([], "name the recipe's YAML"),
        ([str(tmp_path / "absent.yaml")], r"absent\.yaml cannot be read"),
        ([str(tmp_path)], "cannot be read: Is a directory"),
        ([str(tmp_path / "list.yaml")], "is no recipe"),
    ):
        with pytest.raises(ConfigError, match=message):
            parse_arguments(argv)


@pytest.mark.parametrize(("text", "factor"), [("auto", "auto"), ("12", 12), ("x", "x")])
def test_gradients_may_be_gathered_as_long_as_it_takes(recipe, text, factor):
    _, options = parse_arguments([str(recipe), f"--grad_accumulation_factor={text}"])
    assert options.grad_accumulation_factor == factor
    assert run_option_arguments(options) == [f"--grad_accumulation_factor={text}"]
