"""What comes from a file follows it; one that cannot be read changes nothing but a line in the log."""

import logging
import os
from pathlib import Path

import pytest

from routing.access.reload import WatchedFiles
from routing.errors import ConfigError


class Number:
    """A number that a file holds: what was read of it, and how often."""

    def __init__(self, folder: Path) -> None:
        self.file = folder / "number"
        self.file.write_text("1")
        self.used: list[int] = []
        self.reads = 0
        self.followed = WatchedFiles("number", (str(self.file),), self._read, self.used.append)

    def _read(self) -> int:
        self.reads += 1
        text = self.file.read_text()
        if not text.isdecimal():
            raise ConfigError(self.file.name, "", f"expected a number, got {text!r}")
        return int(text)


@pytest.fixture
def number(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> Number:
    caplog.set_level(logging.INFO)
    return Number(tmp_path)


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "routing.access.reload"]


def test_a_file_that_cannot_be_read_at_the_start_stops_it(tmp_path: Path) -> None:
    def read() -> int:
        raise ConfigError("number", "", "expected a number")

    with pytest.raises(ConfigError):
        WatchedFiles("number", (str(tmp_path / "number"),), read, [].append)


async def test_a_file_that_stays_is_not_read_again(number: Number) -> None:
    for _ in range(3):
        await number.followed.check()
    assert (number.used, number.reads) == ([1], 1)


async def test_a_file_that_was_written_is_read_again(
    number: Number, caplog: pytest.LogCaptureFixture
) -> None:
    number.file.write_text("22")
    for _ in range(3):
        await number.followed.check()
    assert (number.used, number.reads) == ([1, 22], 2)
    assert said(caplog) == ["files reloaded what=number"]


async def test_a_file_that_was_replaced_by_one_as_long_and_as_old_is_read_again(
    number: Number, tmp_path: Path
) -> None:
    (tmp_path / "new").write_text("2")
    old = number.file.stat()
    os.utime(tmp_path / "new", ns=(old.st_atime_ns, old.st_mtime_ns))
    os.replace(tmp_path / "new", number.file)
    await number.followed.check()
    assert number.used == [1, 2]


async def test_what_a_link_leads_to_counts(tmp_path: Path) -> None:
    """Kubernetes mounts secrets as links, and changes where they lead."""
    (tmp_path / "number").write_text("2")
    link = tmp_path / "link"
    link.symlink_to("number")
    used: list[str] = []
    followed = WatchedFiles("link", (str(link),), link.read_text, used.append)
    (tmp_path / "next").write_text("3")
    (tmp_path / "other").symlink_to("next")
    os.replace(tmp_path / "other", link)
    await followed.check()
    assert used == ["2", "3"]


async def test_a_broken_file_changes_nothing_and_is_logged_once(
    number: Number, caplog: pytest.LogCaptureFixture
) -> None:
    number.file.write_text("two")
    for _ in range(3):
        await number.followed.check()
    assert number.used == [1]
    assert not number.followed.current
    assert repr(number.followed) == "<WatchedFiles number outdated>"
    assert said(caplog) == ["files not reloaded what=number reason=number: expected a number, got 'two'"]


async def test_it_goes_on_with_the_file_once_it_is_right(
    number: Number, caplog: pytest.LogCaptureFixture
) -> None:
    for text in ("two", "2"):
        number.file.write_text(text)
        await number.followed.check()
    assert (number.used, number.followed.current) == ([1, 2], True)
    assert said(caplog)[-1] == "files reloaded what=number"


async def test_a_different_mistake_is_logged_too(number: Number, caplog: pytest.LogCaptureFixture) -> None:
    for text in ("two", "three", "three"):
        number.file.write_text(text)
        await number.followed.check()
    assert len(said(caplog)) == 2


async def test_a_missing_file_is_logged_once_and_read_when_it_is_back(
    number: Number, caplog: pytest.LogCaptureFixture
) -> None:
    number.file.rename(number.file.with_suffix(".away"))
    for _ in range(3):
        await number.followed.check()
    assert "No such file" in said(caplog)[-1]
    number.file.with_suffix(".away").rename(number.file)
    await number.followed.check()
    assert number.followed.current
    assert [line.split(" what")[0] for line in said(caplog)] == ["files not reloaded", "files reloaded"]


async def test_a_file_that_was_out_of_reach_is_found_again_as_it_was(tmp_path: Path) -> None:
    """As on a disk that was gone for a while."""
    disk = tmp_path / "disk"
    disk.mkdir()
    number = Number(disk)
    disk.rename(tmp_path / "gone")
    await number.followed.check()
    assert not number.followed.current
    (tmp_path / "gone").rename(disk)
    await number.followed.check()
    assert number.followed.current


async def test_what_could_not_be_read_is_tried_again_though_the_file_stays(
    number: Number, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when there was no file descriptor left for it."""

    def fail(_: Path) -> str:
        raise OSError(24, "Too many open files")

    number.file.write_text("2")
    with monkeypatch.context() as patched:
        patched.setattr(Path, "read_text", fail)
        await number.followed.check()
        assert not number.followed.current
    await number.followed.check()
    assert number.used == [1, 2]
