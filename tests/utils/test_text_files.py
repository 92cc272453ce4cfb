import pytest

from todm_sb.errors import DataError
from todm_sb.utils.text_files import lines, read_text, words


def test_only_line_feeds_end_a_line():
    assert lines("") == []
    assert lines("one\r\ntwo\n\nthree") == ["one", "two", "", "three"]
    assert lines("one\n") == ["one"]
    for other in "\r\v\f\x1c\x1d\x1e\x85\u2028\u2029":
        assert lines(f"one{other}two\n") == [f"one{other}two"]


def test_only_ascii_white_space_separates_words():
    assert words("  one\ttwo \r three\n") == ["one", "two", "three"]
    for other in "\x1c\x1f\x85\xa0\u1680\u2003\u2028\u3000\u200b\ufeff":
        assert words(f"one{other}two") == [f"one{other}two"]


def test_a_file_is_read_as_it_is_but_for_a_byte_order_mark(tmp_path):
    path = tmp_path / "text"
    for marks in ("", "\ufeff", "\ufeff\ufeff"):
        path.write_bytes(f"{marks}one\r\ntwo\rthree \ufeff".encode())
        assert read_text(path) == "one\r\ntwo\rthree \ufeff"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "latin-1"])
def test_what_is_no_utf8_is_refused_in_one_line(tmp_path, encoding):
    path = tmp_path / "text"
    path.write_bytes(("DREI ÜBER" if encoding == "latin-1" else "DREI").encode(encoding))
    with pytest.raises(DataError, match="UTF-8") as caught:
        read_text(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
