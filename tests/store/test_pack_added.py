"""Files are added to a store that is there, of the same kind, and replace nothing unless asked."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_media import image, marked_frame, video
from store_content import names, original_store

from clipbert_cli.errors import PathError, StoreError
from clipbert_cli.store.lmdb_store import open_media
from clipbert_cli.store.packing import pack_media


def test_files_are_added_to_a_store(videos: Path, tmp_path: Path, clip: bytes) -> None:
    store = pack_media([videos], tmp_path / "store").store
    more = tmp_path / "more"
    more.mkdir()
    (more / "new.mp4").write_bytes(video(9))
    summary = pack_media([more], store, add=True)
    assert summary.packed == 1
    source = open_media(store, kind="video")
    assert len(source) == 9
    assert source.packets("new") is not None
    del source  # LMDB allows one environment a process
    assert names(store) == ["data.mdb"]
    (more / "video3.mp4").write_bytes(video(20))
    (more / "new.mp4").unlink()
    with pytest.raises(StoreError, match="has 'video3' already"):
        pack_media([more], store, add=True)
    for rule in ("first", "longest"):
        assert pack_media([more], store, add=True, on_duplicate=rule).packed == 0
    assert open_media(store, kind="video").read("video3") == clip


def test_adding_needs_a_store_with_media_records_and_of_the_same_kind(videos: Path, tmp_path: Path) -> None:
    with pytest.raises(PathError, match="does not exist: a store is expected"):
        pack_media([videos], tmp_path / "store", add=True)
    picture = tmp_path / "a.png"
    picture.write_bytes(image(marked_frame(1)))
    pack_media([picture], tmp_path / "pictures")
    with pytest.raises(StoreError, match="of kind 'image'"):
        pack_media([videos], tmp_path / "pictures", add=True)
    assert names(tmp_path / "pictures") == ["data.mdb"]
    assert list(open_media(tmp_path / "pictures", kind="image")) == ["a"]
    pictures = original_store(tmp_path / "original", {"a": video(3)})
    with pytest.raises(StoreError, match="no media records") as caught:
        pack_media([videos], pictures, add=True)
    assert "clipbert store scan" in (caught.value.hint or "")
