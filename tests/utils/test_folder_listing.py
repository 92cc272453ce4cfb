import os

from todm_sb.utils.folders import files, files_digest, is_text, size, subfolders


def test_hidden_entries_are_left_out_and_the_others_come_by_name(tmp_path):
    for name in ("b.flac", "a.flac", "._a.flac", ".DS_Store", "c.wav"):
        (tmp_path / name).touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / ".hidden").mkdir()
    assert files(tmp_path, ".flac") == [tmp_path / "a.flac", tmp_path / "b.flac"]
    assert subfolders(tmp_path) == [tmp_path / "folder", tmp_path / "link"]


def test_the_digest_is_that_of_names_sizes_and_times(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"

    def digest(first, second, time=0):
        for path, content in zip((one, two), (first, second), strict=True):
            path.write_bytes(content)
            os.utime(path, ns=(5, time))
        return files_digest([one, two])

    first = digest(b"1", b"22")
    assert files_digest([str(one), two], num_threads=1) == first == digest(b"1", b"22")
    others = {digest(b"22", b"1"), digest(b"1", b"22", time=1), files_digest([two])}
    one.unlink()
    others.add(files_digest([one, two]))
    assert len(others - {first}) == 4


def test_a_file_that_is_not_there_or_cannot_be_has_no_size(tmp_path):
    assert size(tmp_path / "none") == size("with\0nul") == -1
    assert is_text("größe.flac")
    assert not is_text(os.fsdecode(b"gr\xf6\xdfe.flac"))
