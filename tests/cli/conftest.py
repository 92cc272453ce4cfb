import pytest

from todm_sb.cli import main


@pytest.fixture
def refusal(capsys):
    """Calls a command that has to refuse its arguments; returns the last line that it says."""

    def call(argv):
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == 2
        return capsys.readouterr().err.splitlines()[-1]

    return call
