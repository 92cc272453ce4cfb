import json

from todm_sb.cli import OK, main


def test_inspect_lists_the_subnets(bundle, capsys):
    assert main(["inspect", str(bundle)]) == OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("supernet of 26 subnets")
    assert [line.split()[1] for line in lines[-2:]] == ["max", "min"]


def test_json_is_the_manifest(bundle, capsys):
    assert main(["inspect", str(bundle), "--json"]) == OK
    assert json.loads(capsys.readouterr().out) == json.loads((bundle / "bundle.json").read_text())


def test_a_damaged_bundle_is_exit_code_2(bundle, refusal):
    path = bundle / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    assert refusal(["inspect", str(bundle)]).startswith(
        f"error: bundle {bundle}: weights.safetensors has"
    )
