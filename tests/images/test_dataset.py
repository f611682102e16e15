"""Image datasets: what is written is what is read, whatever happens to the writer."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from sim2real.errors import ConfigError
from sim2real.images.dataset import DatasetWriter, read_dataset


def images(count=3):
    return np.random.default_rng(0).integers(0, 256, (count, 12, 16, 3), dtype=np.uint8)


def write(folder, some, **options):
    with DatasetWriter(folder, 16, 12, {0: "background", 1: "robot"}, {"seed": 3}, **options) as writer:
        for index, image in enumerate(some):
            writer.add(image, (image[..., 0] > 99).astype(np.uint8), object_pos=np.array([0.1 * index, 0.2, 0.3]))
        return writer.count


def test_what_is_written_is_read(tmp_path):
    some = images()
    assert write(tmp_path / "d", some) == 3
    found = read_dataset(tmp_path / "d")
    np.testing.assert_array_equal(found.images, some)
    np.testing.assert_array_equal(found.masks, some[..., 0] > 99)
    np.testing.assert_allclose(found.column("object_pos")[:, 0], [0.0, 0.1, 0.2])
    assert found.classes == {0: "background", 1: "robot"} and found.about == {"seed": 3}


def test_a_torn_end_is_dropped_and_written_again(tmp_path):
    some = images(4)
    write(tmp_path / "d", some[:2])
    with (tmp_path / "d" / "frames.jsonl").open("ab") as file:
        file.write(b'{"image": "images/0000')
    assert len(read_dataset(tmp_path / "d")) == 2
    assert write(tmp_path / "d", some[2:], resume=True) == 4
    np.testing.assert_array_equal(read_dataset(tmp_path / "d").images, some)


def test_nothing_is_overwritten(tmp_path):
    write(tmp_path / "d", images())
    with pytest.raises(ConfigError, match="holds a dataset already"):
        write(tmp_path / "d", images())
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("precious")
    with pytest.raises(ConfigError, match="not empty"):
        write(tmp_path / "other", images())
    with pytest.raises(ConfigError, match="16 x 12, not 8 x 12"):
        DatasetWriter(tmp_path / "d", 8, 12, resume=True)


def test_a_plain_folder_is_a_dataset_without_labels(tmp_path):
    for name, image in zip("ba", images(2), strict=True):
        cv2.imwrite(str(tmp_path / f"{name}.png"), image[..., ::-1])
    found = read_dataset(tmp_path)
    np.testing.assert_array_equal(found.images, images(2)[::-1])
    assert found.masks is None
    with pytest.raises(ConfigError, match="frame 0 lacks 'object_pos'"):
        found.column("object_pos")


def test_bad_datasets_are_one_clear_error(tmp_path):
    with pytest.raises(ConfigError, match="is no folder"):
        read_dataset(tmp_path / "missing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigError, match="holds no images"):
        read_dataset(tmp_path / "empty")
    write(tmp_path / "d", images())
    with DatasetWriter(tmp_path / "d", 16, 12, resume=True) as writer, pytest.raises(ConfigError, match="16 x 12"):
        writer.add(np.zeros((4, 4, 3), dtype=np.uint8))
    cv2.imwrite(str(tmp_path / "d" / "images" / "000001.png"), np.zeros((5, 5, 3), dtype=np.uint8))
    with pytest.raises(ConfigError, match=r"000001\.png is 5 x 5"):
        _ = read_dataset(tmp_path / "d").images
    (tmp_path / "d" / "images" / "000001.png").write_bytes(b"no image")
    with pytest.raises(ConfigError, match=r"000001\.png cannot be read"):
        _ = read_dataset(tmp_path / "d").images
    lines = (tmp_path / "d" / "frames.jsonl").read_text().splitlines()
    (tmp_path / "d" / "frames.jsonl").write_text("\n".join([lines[0], "oops", lines[2]]) + "\n")
    with pytest.raises(ConfigError, match="line 2"):
        read_dataset(tmp_path / "d")
    header = json.loads((tmp_path / "d" / "dataset.json").read_text())
    (tmp_path / "d" / "dataset.json").write_text(json.dumps(header | {"version": 99}))
    with pytest.raises(ConfigError, match="version 99"):
        read_dataset(tmp_path / "d")


def test_a_dataset_is_written_by_one_process(tmp_path):
    with DatasetWriter(tmp_path / "d", 16, 12) as writer:
        with pytest.raises(ConfigError, match=r"d is being written by process \d+"):
            DatasetWriter(tmp_path / "d", 16, 12, resume=True)
        writer.add(np.zeros((12, 16, 3), np.uint8))
    with pytest.raises(ConfigError, match="not 8 x 12"):
        DatasetWriter(tmp_path / "d", 8, 12, resume=True)
    with DatasetWriter(tmp_path / "d", 16, 12, resume=True) as writer:
        assert writer.count == 1
    assert not (tmp_path / "d" / ".lock").exists()
