"""How scripts end."""

import pytest

from todm_sb.errors import ConfigError, one_line_errors


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigError("lr must be positive"), 2, "error: lr must be positive"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_script_ends_with_one_line_where_the_user_is_the_cause(error, status, line, capsys):
    with pytest.raises(SystemExit) as ended, one_line_errors():
        raise error
    assert ended.value.code == status
    assert capsys.readouterr().err == f"{line}\n"


def test_a_fault_of_ours_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError), one_line_errors():
        1 / 0  # noqa: B018
