"""Decoding of media: what is real is measured, what is broken or huge is refused in a sentence, and nothing raises."""

from __future__ import annotations

import contextlib
import io
import random
import struct
import zlib

import PIL.Image
import pytest

from roadworthy.conformance.reading import media as reader
from roadworthy.conformance.reading.media import MediaError
from roadworthy.sandbox import media as maker
from roadworthy.schemas import manifest

TEXT = "Hello there, this is a test."
WAV = maker.wav(TEXT)
SOUNDS = {format: maker.sound(TEXT, format) for format in maker.CONTENT_TYPES}
FILM = maker.mp4(7, frames=8)
PICTURE = maker.png(96, 64, 12345)


def picture(format, mode="RGB", size=(20, 10)):
    file = io.BytesIO()
    PIL.Image.new(mode, size).save(file, format)
    return file.getvalue()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_picture_is_measured():
    assert reader.image(PICTURE) == reader.Image(96, 64, "png", blank=False)


@pytest.mark.parametrize(
    ("format", "mode"), [("PNG", "1"), ("PNG", "P"), ("PNG", "I;16"), ("PNG", "RGBA"), ("JPEG", "L"), ("WEBP", "RGB")]
)
def test_one_colour_is_seen_in_every_format(format, mode):
    read = reader.image(picture(format, mode))
    assert (read.width, read.height, read.format, read.blank) == (20, 10, format.lower(), True)


@pytest.mark.parametrize("format", sorted(SOUNDS))
def test_sound_is_measured_in_every_format(format):
    read = reader.audio(SOUNDS[format])
    assert read.duration_s == pytest.approx(len(TEXT) * maker.SECONDS_PER_CHARACTER, abs=0.15)
    assert read.channels == 1
    assert not read.silent
    assert reader.fits(maker.CONTENT_TYPES[format], read.format)


@pytest.mark.parametrize("format", ["wav", *maker.CODECS])
def test_silence_is_heard_in_every_format(format):
    plain = maker.packed(bytes(32_000))
    assert reader.audio(plain if format == "wav" else maker.encoded(plain, format)).silent


def test_a_film_is_measured():
    read = reader.video(FILM)
    assert (read.width, read.height, read.frames, read.format) == (64, 64, 8, "mp4")
    assert read.duration_s == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["scene.png", "speech.wav", "clip.mp4"])
def test_our_own_examples_are_media(name):
    read = {"png": reader.image, "wav": reader.audio, "mp4": reader.video}[name.rpartition(".")[2]]
    assert read(manifest.media(name)).format == name.rpartition(".")[2]


@pytest.mark.parametrize("size", [0, 0x7FFFFFFF, 0xFFFFFFFF])
def test_a_wav_of_unknown_size_is_read_to_its_end(size):
    streamed = WAV[:40] + struct.pack("<I", size) + WAV[44:]
    assert reader.audio(streamed) == reader.audio(WAV)


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "no bytes"),
        (b"<html>", "no known format"),
        (PICTURE, "png data, not audio"),
        (WAV[:-100], "announces"),
        (WAV[:44], "announces"),
        (maker.packed(b""), "no sample"),
        (WAV[:36], "no data chunk"),
        (WAV[:12] + WAV[36:], "fmt chunk"),
        (WAV[:22] + b"\0\0" + WAV[24:], "0 channels"),
        (WAV[:24] + struct.pack("<I", 1) + WAV[28:], "longer than"),
        (SOUNDS["flac"][:60], "cannot be decoded"),
        (FILM, "no audio track"),
        (b"ID3" + bytes(3000), "mp3 audio"),
        (b"RIFF\0\0\0\0WAVE" + bytes(reader.MAX_BYTES), "up to"),
    ],
)
def test_what_is_no_sound_is_refused_in_a_sentence(data, says):
    with pytest.raises(MediaError, match=says) as raised:
        reader.audio(data)
    assert str(raised.value).endswith(".")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (WAV, "wav data, not an image"),
        (PICTURE[:-30], "cannot be decoded"),
        (PICTURE[:60], "cannot be decoded"),
        (picture("PNG", "1", (8192, 8192)), "are decoded"),
        (picture("JPEG")[:-60], "cannot be decoded"),
        (
            b"\x89PNG\r\n\x1a\n"
            + chunk(b"IHDR", struct.pack(">IIBBBBB", 1 << 30, 1 << 30, 1, 0, 0, 0, 0))
            + chunk(b"IDAT", b"")
            + chunk(b"IEND", b""),
            "image",
        ),
    ],
)
def test_what_is_no_picture_is_refused_in_a_sentence(data, says):
    with pytest.raises(MediaError, match=says) as raised:
        reader.image(data)
    assert str(raised.value).endswith(".")


def test_sound_of_many_minutes_in_few_bytes_is_not_decoded_to_its_end():
    bomb = maker.encoded(maker.packed(bytes(2 * 16_000 * 700)), "flac")
    assert len(bomb) < 1_000_000
    with pytest.raises(MediaError, match="longer than"):
        reader.audio(bomb)


def test_a_playlist_is_never_followed():
    for text in (b"#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:1/x.mp3\n", b"ffconcat version 1.0\nfile /etc/passwd\n"):
        for read in (reader.audio, reader.video, reader.image):
            with pytest.raises(MediaError):
                read(text)


@pytest.mark.parametrize("whole", [PICTURE, *SOUNDS.values(), FILM], ids=["png", *SOUNDS, "mp4"])
def test_damage_raises_nothing_else(whole):
    chance = random.Random(1)
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 30)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        cut = bytes(data[: chance.randint(1, len(data))])
        for read in (reader.image, reader.audio, reader.video):
            with contextlib.suppress(MediaError):
                assert read(cut).format in reader.MEDIA_TYPES


def test_pictures_of_one_scene_lie_near_and_others_far():
    again = maker.png(96, 64, 12345)
    assert reader.difference(PICTURE, again) == 0
    assert reader.difference(PICTURE, maker.png(96, 64, 54321 * 977)) > 0.1
