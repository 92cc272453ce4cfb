import os
from pathlib import Path

import pytest

from todm_sb.utils.errors import ConfigError
from todm_sb.utils.hub import ONNX_FILES
from todm_sb.web.models import CARD, find_models


def test_models_at_any_depth_the_smallest_first(web_export):
    web_export("all/max/float32", size=30, name="max")
    folder = web_export("all/max/int8", size=10, name="max")
    web_export("min", size=20)
    found = find_models(folder)
    assert [m.path for m in found] == ["all/max/int8", "min", "all/max/float32"]
    assert [m.size for m in found] == [size * len(ONNX_FILES) for size in (10, 20, 30)]
    assert found[0].card["name"] == "max"


def test_a_folder_may_be_a_model_itself(web_export):
    (model,) = find_models(web_export("min/int8") / "min" / "int8")
    assert model.path == "."


@pytest.mark.parametrize("make", [None, Path.touch, Path.mkdir])
def test_a_folder_that_is_no_export_is_one_line_with_the_mend(tmp_path, make):
    folder = tmp_path / "there"
    if make:
        make(folder)
    with pytest.raises(ConfigError, match="todm-sb export RUN FOLDER --format web") as error:
        find_models(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("name", ONNX_FILES)
def test_a_missing_file_is_named(web_export, name):
    folder = web_export()
    (folder / "min" / "int8" / name).unlink()
    with pytest.raises(ConfigError, match=f"{name} is missing"):
        find_models(folder)


def test_what_is_being_exported_and_other_peoples_cards_are_passed_over(web_export):
    web_export(".unfinished-export/min/int8")
    folder = web_export()
    (folder / "cat").mkdir()
    (folder / "cat" / CARD).write_text("{}")
    assert [m.path for m in find_models(folder)] == ["min/int8"]


@pytest.mark.parametrize("text", ["", "[]", '{"name": "min"}', "\x00"])
def test_a_damaged_card_is_named(web_export, text):
    folder = web_export()
    (folder / "min" / "int8" / CARD).write_text(text)
    with pytest.raises(ConfigError, match=f"{CARD} does not describe a subnet"):
        find_models(folder)


def test_a_link_out_of_the_folder_is_refused(web_export, tmp_path):
    folder = web_export()
    secret = tmp_path / "secret"
    secret.write_text("secret")
    path = folder / "min" / "int8" / "encoder.onnx"
    path.unlink()
    os.symlink(secret, path)
    with pytest.raises(ConfigError, match="is a link out of"):
        find_models(folder)
