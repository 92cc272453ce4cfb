import pytest

from todm_sb.training.precision import fastest_precision


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("flags : fpu avx2 avx512_bf16 amx_bf16", "bf16"),
        ("Features : fp asimd bf16", "bf16"),
        ("flags : fpu avx2 avx512f", "fp32"),
    ],
)
def test_bfloat16_is_for_processors_that_have_it(tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"processor : 0\n{flags}\n")
    assert fastest_precision(tmp_path / "cpuinfo") == expected


def test_nothing_known_of_the_processor_means_float32(tmp_path):
    assert fastest_precision(tmp_path / "cpuinfo") == "fp32"
