"""Decoding: good files of every kind to the right pixels, damaged ones to a line that names them."""

from __future__ import annotations

import io
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image

from kd_lightning.data.images.crops import CentreCrop
from kd_lightning.data.images.decode import ImageError, decode_image, exif_orientation, read_image, upright


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg"))  # 640x427


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels_of(data: bytes) -> np.ndarray:
    return decode_image(data, "file")[0]


def difference(one: np.ndarray, two: np.ndarray) -> float:
    assert one.shape == two.shape
    return np.abs(one.astype(int) - two).mean()


@pytest.mark.parametrize("options", [{}, {"subsampling": 0}, {"progressive": True}, {"quality": 40}])
def test_jpeg_equals_pillow(photo, options):
    data = encoded(photo, "JPEG", **options)
    ours, full = decode_image(data, "file")
    assert full == ours.shape[:2] == (427, 640)
    assert ours.dtype == np.uint8
    assert difference(ours, np.asarray(Image.open(io.BytesIO(data)))) < 0.5


JPEGS = {
    "usual": {},
    "full colour": {"subsampling": 0},
    "half colour": {"subsampling": 1},
    "progressive": {"progressive": True},
    "restarts": {"restart_marker_blocks": 7},
    "grey": {},
}


@pytest.mark.parametrize("kind", list(JPEGS))
def test_the_first_rows_are_the_same_when_only_they_are_wanted(photo, kind):
    data = encoded(photo.convert("L") if kind == "grey" else photo, "JPEG", **JPEGS[kind])
    whole = pixels_of(data)
    for rows in (1, 14, 15, 16, 100, 300, 411, 427):
        some, full = decode_image(data, "file", rows=lambda height, width, rows=rows: rows)
        assert full == some.shape[:2] == (427, 640)
        assert np.array_equal(some[:rows], whole[:rows])


def test_rows_that_are_not_wanted_are_not_decoded(photo):
    data = encoded(photo, "JPEG")
    whole, end = pixels_of(data), len(data) * 9 // 10
    damaged = data[:end] + bytes(200) + data[end + 200 :]
    assert np.array_equal(decode_image(damaged, "file", rows=lambda *_: 200)[0][:200], whole[:200])
    assert not np.array_equal(decode_image(damaged, "file", rows=lambda *_: 427)[0], whole)


def test_damage_in_the_wanted_rows_is_met_as_when_all_are_wanted(photo):
    data = encoded(photo, "JPEG")
    start = len(data) // 10
    damaged = data[:start] + bytes(200) + data[start + 200 :]
    whole = decode_image(damaged, "file")[0]
    assert np.array_equal(decode_image(damaged, "file", rows=lambda *_: 200)[0][:200], whole[:200])


def test_a_turned_jpeg_is_decoded_whole(photo):
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(photo, "JPEG", exif=exif)
    assert np.array_equal(decode_image(data, "file", rows=lambda *_: 20)[0], pixels_of(data))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF", "GIF"])
def test_other_formats_equal_pillow(photo, kind):
    data = encoded(photo, kind)
    assert np.array_equal(pixels_of(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_grey_becomes_three_equal_channels(photo, kind):
    grey = photo.convert("L")
    ours = pixels_of(encoded(grey, kind))
    assert (ours == ours[..., :1]).all()
    assert difference(ours[..., 0], np.asarray(grey)) < 5


def test_cmyk_jpeg_has_the_right_colours(photo):
    data = encoded(photo.convert("CMYK"), "JPEG", quality=95)
    assert difference(pixels_of(data), np.asarray(photo)) < 4


def test_16_bit_png_keeps_its_greys():
    ramp = (np.arange(256)[None] * 257).astype(np.uint16).repeat(4, axis=0)
    ours = pixels_of(encoded(Image.fromarray(ramp), "PNG"))
    assert np.array_equal(ours[..., 0], np.arange(256)[None].repeat(4, axis=0))
    assert (ours == ours[..., :1]).all()


def test_16_bit_colour_png_keeps_its_colours():
    rgb = np.zeros((2, 3, 3), np.uint16)
    rgb[..., 0], rgb[..., 1], rgb[..., 2] = 0xFFFF, 0x8080, 0x0101
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in rgb)
    ours = pixels_of(png(3, 2, 16, 2, rows))
    assert (ours == np.array([255, 128, 1])).all()


def test_palette_and_transparent_png(photo):
    for mode in ("P", "RGBA", "LA"):
        image = photo.convert(mode) if mode != "LA" else photo.convert("L").convert("LA")
        data = encoded(image, "PNG")
        assert np.array_equal(pixels_of(data), np.asarray(image.convert("RGB")))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_exif_turned_images_are_upright(photo, orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photo, kind, exif=exif)
    from PIL import ImageOps

    wanted = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))))
    ours, full = decode_image(data, "file")
    assert full == wanted.shape[:2]
    assert difference(ours, wanted) < 0.5
    assert ours.flags.c_contiguous
    if kind == "JPEG":
        assert exif_orientation(data) == orientation


@pytest.mark.parametrize("cut", range(2, 60))
def test_reading_the_orientation_of_a_damaged_header_never_fails(photo, cut):
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(photo.resize((16, 16)), "JPEG", exif=exif)
    assert exif_orientation(data[:cut]) in (1, 6)
    assert exif_orientation(data[:cut] + b"\xff" * 40) in range(1, 65536)


def test_an_unknown_orientation_changes_nothing():
    pixels = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    assert upright(pixels, 0) is pixels
    assert upright(pixels, 77) is pixels


def test_the_name_of_a_file_does_not_matter(photo, tmp_path):
    path = tmp_path / "really_a_png.jpg"
    path.write_bytes(encoded(photo, "PNG"))
    pixels, _ = read_image(path)
    assert np.array_equal(pixels, np.asarray(photo))
    assert pixels.flags.writeable  # torch warns of arrays that are not


def png(width: int, height: int, depth: int, kind: int, rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_before_they_are_decoded(photo):
    for data in (
        png(60_000, 60_000, 8, 2, b"\0" * 1000),
        png(12_000, 12_000, 8, 0, b"\0" * 1000),  # between Pillow's warning and its error
    ):
        with pytest.raises(ImageError, match=r"bomb\.png has \d+x\d+ pixels.*data\.max_pixels"):
            decode_image(data, "bomb.png")
    for kind in ("JPEG", "BMP"):
        with pytest.raises(ImageError, match=r"has 640x427 pixels, more than data\.max_pixels=1,000"):
            decode_image(encoded(photo, kind), "file", max_pixels=1000)
    assert pixels_of(encoded(photo, "JPEG")).size


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "GIF"])
@pytest.mark.parametrize("keep", [0.0, 0.02, 0.5, 0.97])
def test_truncated_files_are_named(photo, kind, keep):
    data = encoded(photo, kind)
    for rows in (None, lambda height, width: 20):
        with pytest.raises(ImageError, match=r"^cats/7\.jpg .*data\.on_bad_image=skip") as caught:
            decode_image(data[: int(len(data) * keep)], "cats/7.jpg", rows=rows)
        assert "\n" not in str(caught.value)


def test_a_jpeg_with_stray_bytes_is_read_as_pillow_reads_it(photo):
    data = encoded(photo, "JPEG")
    stray = data[:2] + b"\xff\xe7\x00\x06abcd" + data[2:-2] + b"\0\0\0" + data[-2:] + b"trailing"
    assert difference(pixels_of(stray), np.asarray(Image.open(io.BytesIO(stray)))) < 0.5


@pytest.mark.parametrize("content", [b"x", b"GIF89a", b"\xff\xd8", b"\xff\xd8\xff\xe0junk", b"<svg/>", bytes(5000)])
def test_what_is_no_image_is_named(content):
    with pytest.raises(ImageError, match=r"^file "):
        decode_image(content, "file")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ImageError, match=r"gone\.jpg cannot be read: No such file"):
        read_image(tmp_path / "gone.jpg")
    with pytest.raises(ImageError, match="cannot be read: Is a directory"):
        read_image(tmp_path)


@pytest.mark.parametrize("orientation", [1, 6])
@pytest.mark.parametrize("factor", [2, 4, 8])
def test_a_shrunken_jpeg_has_its_size_and_full_tells_the_whole(photo, factor, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    asked = []
    data = encoded(photo, "JPEG", exif=exif)
    pixels, full = decode_image(data, "file", lambda h, w: asked.append((h, w)) or factor)
    assert full == ((640, 427) if orientation == 6 else (427, 640))
    assert asked == [full]
    assert pixels.shape[:2] == tuple(-(-side // factor) for side in full)


@pytest.mark.parametrize("name", ["china.jpg", "flower.jpg"])
@pytest.mark.parametrize(("size", "factor"), [(160, 2), (213, 2), (80, 4), (106, 4), (40, 8)])
def test_scaled_decoding_differs_as_little_as_documented(name, size, factor):
    data = encoded(Image.fromarray(load_sample_image(name)), "JPEG", quality=90)
    crop = CentreCrop(size, size)
    pixels, full = decode_image(data, name, partial(crop.factor, draw=None))
    assert pixels.shape[0] == -(-full[0] // factor)
    ours = crop.cut(pixels, full, None).numpy().astype(int)
    wanted = crop.cut(*decode_image(data, name), None).numpy().astype(int)
    error = np.abs(ours - wanted)
    assert 0 < error.mean() < 5.5
    assert np.quantile(error, 0.99) <= 38


def test_a_jpeg_with_a_colour_sampling_that_the_fast_decoder_does_not_know_goes_to_pillow():
    file = Path(__file__).with_name("sampling_4_4_1.jpg")
    assert np.array_equal(read_image(file)[0], np.asarray(Image.open(file).convert("RGB")))


@pytest.mark.parametrize("error", [RuntimeError, TypeError, KeyError, IndexError, ZeroDivisionError])
def test_whatever_a_decoder_raises_at_a_damaged_file_is_one_line_that_names_it(monkeypatch, photo, error):
    def damaged(self):
        raise error("frame 0\nis not whole")

    data = encoded(photo, "PNG")
    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", damaged)
    with pytest.raises(ImageError, match=r"^file is damaged: .*frame 0") as caught:
        decode_image(data, "file")
    assert "on_bad_image=skip" in str(caught.value)


RAMP = np.tile(np.linspace(0, 255, 64).astype(np.uint8), (48, 1))


@pytest.mark.parametrize(
    "values",
    [
        RAMP.astype(np.uint16),
        RAMP.astype(np.uint16) * 16 + 15,
        RAMP.astype(np.uint16) * 257,
        RAMP.astype(np.int32),
        RAMP.astype(np.int32) * 257,
        RAMP.astype(np.float32),
        RAMP.astype(np.float32) / 255,
    ],
    ids=["8 of 16 bits", "12 of 16 bits", "16 bits", "8 of 32 bits", "16 of 32 bits", "floats to 255", "floats to 1"],
)
def test_greys_of_any_depth_look_the_same(values):
    pixels = pixels_of(encoded(Image.fromarray(values), "TIFF"))
    assert np.array_equal(pixels, np.repeat(RAMP[..., None], 3, axis=2))


def test_which_grey_is_white_can_be_said_and_has_to_be_where_nobody_can_tell():
    dark, huge = Image.fromarray(RAMP.astype(np.uint16)), Image.fromarray(RAMP.astype(np.int32) * 1000)
    assert decode_image(encoded(dark, "TIFF"), "file", grey_white=65535)[0].max() == 0
    assert np.ptp(decode_image(encoded(huge, "TIFF"), "file", grey_white=255000)[0]) == 255
    with pytest.raises(ImageError, match=r"file has values up to 255000: set data\.grey_white"):
        pixels_of(encoded(huge, "TIFF"))


@pytest.mark.parametrize(
    ("values", "told"),
    [
        (RAMP.astype(np.int32) - 100, "negative values .-100 to 155."),
        (np.full((4, 4), np.inf, np.float32), "not finite"),
    ],
)
def test_values_that_are_no_grey_are_refused(values, told):
    with pytest.raises(ImageError, match=told):
        pixels_of(encoded(Image.fromarray(values), "TIFF"))
