"""Files as cameras, scanners and image programs write them."""

import io
import re
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowexp.data.image_decoding import (
    NotDecodedError,
    decode_image,
    is_image,
    what_is_left_out,
)

GREY = np.arange(256, dtype=np.uint8).reshape(16, 16)
COLOUR = np.stack([GREY, GREY.T, GREY[::-1]], axis=-1)
NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
RAMP_16 = np.linspace(0, 65535, 1024).astype(np.uint16).reshape(32, 32)
LEVELS = np.rint(RAMP_16 / 257.0).astype(np.uint8)

# How a camera that was held otherwise stores an upright scene, by EXIF's number.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.transpose(1, 0, 2),
    6: lambda x: np.rot90(x),
    7: lambda x: x[::-1, ::-1].transpose(1, 0, 2),
    8: lambda x: np.rot90(x, -1),
}


def file_of(image, **options):
    image = Image.fromarray(image) if isinstance(image, np.ndarray) else image
    stream = io.BytesIO()
    image.save(stream, **{"format": "png", **options})
    return stream.getvalue()


def pixels(content, **options):
    return np.asarray(decode_image(content, **options))


def turned(scene, number, **options):
    exif = Image.Exif()
    exif[0x0112] = number
    return file_of(np.ascontiguousarray(STORED[number](scene)), exif=exif, **options)


def scene():
    """Four different corners, not square."""
    found = np.zeros((16, 24, 3), dtype=np.uint8)
    found[:8, :8], found[:8, 8:], found[8:, :8] = (250, 0, 0), (0, 250, 0), (0, 0, 250)
    return found


@pytest.mark.parametrize(
    "options",
    [
        {"format": "jpeg", "quality": 100, "subsampling": 0},
        {"format": "png"},
        {"format": "webp", "lossless": True},
        {"format": "tiff"},
    ],
    ids=lambda options: options["format"],
)
def test_all_eight_orientations_are_turned_upright(options):
    for number in STORED:
        found = pixels(turned(scene(), number, **options)).astype(int)
        assert found.shape == scene().shape, number
        assert np.abs(found - scene()).max() <= 8, number


@pytest.mark.parametrize("exif", [b"Exif\x00\x00nonsense", b"Exif\x00\x00MM\x00*\x00\x00\xff\xff"])
def test_unreadable_exif_says_nothing_about_the_pixels(exif):
    assert np.array_equal(pixels(file_of(COLOUR, exif=exif)), COLOUR)


@pytest.mark.parametrize(
    ("values", "options"),
    [
        (RAMP_16, {"format": "png"}),
        (RAMP_16, {"format": "tiff"}),
        (RAMP_16, {"format": "jpeg2000", "irreversible": False}),
        (RAMP_16.astype(np.int32), {"format": "tiff"}),
        (RAMP_16.astype(np.int32), {"format": "ppm"}),
        ((RAMP_16 / 65535.0).astype(np.float32), {"format": "tiff"}),
    ],
)
def test_deep_greys_keep_their_range(values, options):
    found = decode_image(file_of(values, **options))
    assert found.mode == "L"
    assert np.array_equal(np.asarray(found), LEVELS)


def tiff(values, *, bits, photometric, order):
    """A TIFF as scanners write it; Pillow writes no such ones."""
    height, width = values.shape
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(np.int64)
        packed = (pairs[:, 0] << 12) | pairs[:, 1]
        data = b"".join(int(pair).to_bytes(3, "big") for pair in packed)
    else:
        data = values.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1,
            278: height, 279: len(data)}  # fmt: skip
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, v) for tag, v in tags.items())
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + bytes(4)


@pytest.mark.parametrize(
    ("bits", "photometric", "order"), [(16, 1, "<"), (16, 1, ">"), (16, 0, "<"), (12, 1, "<")]
)
def test_the_bits_and_the_white_of_a_tiff_are_those_it_states(bits, photometric, order):
    values = RAMP_16 >> (16 - bits)
    stored = (2**bits - 1) - values if photometric == 0 else values
    found = pixels(tiff(stored, bits=bits, photometric=photometric, order=order))
    assert np.array_equal(found, np.rint(values * (255.0 / (2**bits - 1))).astype(np.uint8))


def test_a_stored_ramp_of_16_bits():
    found = pixels((Path(__file__).parent / "images/grey16_ramp.png").read_bytes())
    assert found.min() == 0
    assert found.max() == 255
    assert len(np.unique(found)) >= 32
    assert abs(found.mean() - 127.5) < 1.0


def test_colour_of_16_bits_keeps_its_range():
    """Pillow cannot write it, so the file is made by hand."""

    def chunk(kind, content):
        check = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + check

    deep = np.stack([RAMP_16, RAMP_16[::-1], RAMP_16.T], axis=-1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in deep)
    head = struct.pack(">IIBBBBB", 32, 32, 16, 2, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)
    assert np.abs(pixels(content) - deep / 257.0).max() <= 1.0


@pytest.mark.parametrize(
    ("image", "options", "expected"),
    [
        (Image.fromarray(GREY).convert("LA"), {}, GREY),
        (Image.fromarray(GREY).convert("P"), {}, GREY),
        (Image.fromarray(GREY), {"format": "gif"}, GREY),
        (Image.fromarray(GREY).convert("P"), {"transparency": bytes([255] * 256)}, GREY),
        (Image.fromarray(COLOUR).convert("RGBA"), {}, COLOUR),
        (Image.fromarray(COLOUR).convert("CMYK"), {"format": "tiff"}, COLOUR),
        (Image.fromarray(GREY > 100), {}, 255 * (GREY > 100)),
    ],
)
def test_other_modes_become_grey_or_colour(image, options, expected):
    assert np.array_equal(pixels(file_of(image, **options)), expected)


def test_a_palette_of_greys_suits_both_kinds_of_sets():
    content = file_of(Image.fromarray(GREY), format="gif")
    assert decode_image(content, channels=1).mode == "L"
    assert np.array_equal(pixels(content, channels=3), np.repeat(GREY[..., None], 3, axis=-1))
    colourful = file_of(Image.fromarray(COLOUR).quantize(16))
    assert decode_image(colourful, channels=1).mode == "RGB"


def test_of_several_frames_the_first_is_read():
    frames = [Image.fromarray(GREY), Image.fromarray(GREY[::-1].copy())]
    for kind in ("gif", "tiff"):
        content = file_of(frames[0], format=kind, save_all=True, append_images=frames[1:])
        assert np.array_equal(pixels(content), GREY)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (file_of(Image.new("RGBA", (8, 8))), "has mode RGBA with transparent pixels"),
        (file_of(Image.new("LA", (8, 8))), "has mode LA with transparent pixels"),
        (file_of(Image.fromarray(GREY).convert("P"), transparency=3), "mode P with transparent"),
        (file_of(GREY.astype(np.float32), format="tiff"), "mode F with values from 0 to 255"),
        (file_of(GREY.astype(np.int32), format="tiff"), "mode I with values from 0 to 255"),
        (file_of(-RAMP_16.astype(np.int32), format="tiff"), "mode I with values from -65535"),
        (b"", "is damaged"),
        (b"this is no image", r"is damaged \(its bytes are no image\)"),
        (file_of(NOISE)[:200], "is damaged"),
        (file_of(NOISE, format="jpeg")[:-200], "is damaged"),
        (file_of(NOISE, format="webp", lossless=True)[:200], "is damaged"),
        (file_of(NOISE, format="gif")[:200], "is damaged"),
        (file_of(NOISE, format="tiff")[:200], "is damaged"),
    ],
)
def test_what_has_no_pixels_says_why_without_addresses(content, message):
    with pytest.raises(NotDecodedError, match=message) as caught:
        decode_image(content)
    assert not re.search(r"0x[0-9a-f]{4}|object at|<_io", str(caught.value))


def test_every_suffix_in_any_case_is_an_image_and_hidden_files_are_not():
    for name in ("a.PNG", "b/c.JPG", "d.tiff", "e.jfif", "./f.jpe", "g.gif", "h.bmp"):
        assert is_image(name)
    for name in ("._a.png", ".x/a.png", "__MACOSX/a.png", "__MACOSX\\._a.png", "a.txt", "png"):
        assert not is_image(name)


def test_what_is_left_out_is_counted_by_kind_and_named():
    others = ["b.txt", "c.txt", "d.txt", "e.txt", ".DS_Store", "f", "gone.png", "dataset.json"]
    kept = ["a.png", "a.gif"]
    said = what_is_left_out(
        "here", [*kept, *others], kept=kept, known=["dataset.json"], lost=["gone.png"]
    )
    assert said == (
        "here: 2 images are read, 7 files are left out: 4 .txt (b.txt, c.txt, d.txt, ...), "
        "1 hidden (.DS_Store), 1 without a suffix (f), 1 no file or a broken link (gone.png); of "
        "a .gif file with several frames, the first is read."
    )
    assert what_is_left_out("here", ["a.png"], kept=["a.png"]) is None
