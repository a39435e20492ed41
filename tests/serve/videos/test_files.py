import os
from pathlib import Path

import pytest

from recsys.data.folders import address_of
from recsys.serve.videos.files import local_captions, local_video


def test_a_local_video_is_handed_out(tmp_path: Path) -> None:
    clip = tmp_path / "Clip.MP4"
    clip.write_bytes(b"x")
    assert local_video(str(clip)) == (str(clip), "video/mp4")
    assert local_video(f"file://{clip}") == (str(clip), "video/mp4")
    odd = tmp_path / os.fsdecode(b"caf\xe9 #1.mp4")
    odd.write_bytes(b"x")
    assert local_video(address_of(str(odd))) == (str(odd), "video/mp4")


@pytest.mark.parametrize(
    "uri",
    [
        None,
        "https://host/a.mp4",
        "s3://bucket/a.mp4",
        "/no/such.mp4",
        "file://host/a.mp4",
        "file:///a%00.mp4",
    ],
)
def test_what_is_not_local_is_not(uri: str | None) -> None:
    assert local_video(uri) is None


def test_other_files_and_folders_are_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "folder.mp4").mkdir()
    assert local_video(str(tmp_path / "notes.txt")) is None
    assert local_video(str(tmp_path / "folder.mp4")) is None


def test_a_link_counts_as_what_it_leads_to(tmp_path: Path) -> None:
    """A link named like a video must not give another kind of file away."""
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "clip.mp4").symlink_to(tmp_path / "notes.txt")
    assert local_video(str(tmp_path / "clip.mp4")) is None


def test_captions_lie_beside_a_video_of_this_machine(tmp_path: Path) -> None:
    clip, captions = tmp_path / "a.b.mp4", tmp_path / "a.b.vtt"
    clip.write_bytes(b"x")
    assert local_captions(str(clip)) is None
    captions.write_text("WEBVTT")
    assert local_captions(str(clip)) == (str(captions), "text/vtt")
    assert local_captions(f"file://{clip}") == (str(captions), "text/vtt")
    clip.unlink()
    assert local_captions(str(clip)) is None, "captions of nothing"


def test_captions_that_lead_to_another_kind_of_file_are_refused(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").write_bytes(b"x")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / "clip.vtt").symlink_to(tmp_path / "notes.txt")
    assert local_captions(str(tmp_path / "clip.mp4")) is None
