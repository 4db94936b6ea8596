"""Media that the sandbox makes: pictures, tones and films, all from the request, and readable by any decoder."""

from __future__ import annotations

import hashlib
import io
import math
import struct
import wave
import zlib
from array import array
from typing import Any

SAMPLE_RATE_HZ = 16_000
SECONDS_PER_CHARACTER = 0.06
SHORTEST_S = 0.3
LONGEST_S = 30.0
LONGEST_HEARD_S = 600
FRAMES_PER_S = 8
CODECS = {
    "mp3": ("mp3", "libmp3lame"),
    "flac": ("flac", "flac"),
    "opus": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
}
"""The formats that `sound` makes besides WAV: container and encoder."""
CONTENT_TYPES = {
    "wav": "audio/wav",
    "mp3": "audio/mpeg",
    "flac": "audio/flac",
    "opus": "audio/ogg",
    "aac": "audio/aac",
}
_PERIOD = 80


def number(text: str) -> int:
    """A number that stands for a text: the same for the same text, in every process."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6])


def png(width: int, height: int, seed: int) -> bytes:
    """A PNG of this size: a gradient between two colours that the seed chooses."""
    start = (seed & 255, seed >> 8 & 255, seed >> 16 & 255)
    rows = bytearray()
    for y in range(height):
        shade = y * 255 // max(1, height - 1)
        row = bytearray(bytes(((start[0] + shade) % 256, (start[1] + shade // 2) % 256, start[2])) * width)
        for x in range(min(width, 16)):
            row[3 * x] = (row[3 * x] + 8 * x + 1) % 256
        rows += b"\x00" + row
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(bytes(rows), 1)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_png_chunk(kind, data) for kind, data in parts)


def wav(text: str, speed: float = 1.0) -> bytes:
    """A WAV (16-bit mono) with a tone for each character: the longer the text, the longer it is."""
    duration_s = min(LONGEST_S, max(SHORTEST_S, len(text) * SECONDS_PER_CHARACTER)) / speed
    total = int(duration_s * SAMPLE_RATE_HZ)
    sound = array("h")
    each = max(1, total // max(1, len(text)))
    for character in text or " ":
        sound.extend(_tone(ord(character), each))
        if len(sound) >= total:
            break
    sound = (sound * (total // max(1, len(sound)) + 1))[:total]
    return packed(sound.tobytes())


def packed(samples: bytes, sample_rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """16-bit mono samples as a WAV."""
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(sample_rate_hz)
        out.writeframes(samples)
    return file.getvalue()


def duration_s(data: bytes) -> float:
    """How long a WAV is. Raises `ValueError` for anything else."""
    try:
        with wave.open(io.BytesIO(data)) as file:
            return float(file.getnframes() / file.getframerate())
    except (wave.Error, EOFError, ZeroDivisionError) as error:
        raise ValueError(f"not a WAV: {error}") from None


def samples(data: bytes) -> tuple[bytes, int]:
    """The 16-bit mono samples and their rate in Hz of a WAV, MP3, FLAC or Ogg. Raises `ValueError` for others."""
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        try:
            with wave.open(io.BytesIO(data)) as file:
                if file.getnchannels() == 1 and file.getsampwidth() == 2 and file.getframerate():
                    return file.readframes(file.getnframes()), file.getframerate()
        except (wave.Error, EOFError) as error:
            raise ValueError(f"not a WAV: {error}") from None
    magic = ((b"RIFF", "wav"), (b"fLaC", "flac"), (b"OggS", "ogg"), (b"ID3", "mp3"), (b"\xff", "mp3"))
    container = next((name for start, name in magic if data.startswith(start)), None)
    if container is None:
        raise ValueError("neither WAV, MP3, FLAC nor Ogg")
    import av

    found = bytearray()
    try:
        with av.open(io.BytesIO(data), "r", format=container) as source:
            resampler = av.AudioResampler(format="s16", layout="mono", rate=SAMPLE_RATE_HZ)
            for frame in source.decode(audio=0):
                for piece in resampler.resample(frame):
                    found += bytes(piece.planes[0])[: 2 * piece.samples]
                if len(found) > 2 * SAMPLE_RATE_HZ * LONGEST_HEARD_S:
                    break
    except (av.error.FFmpegError, IndexError) as error:
        raise ValueError(f"not {container}: {error}") from None
    return bytes(found), SAMPLE_RATE_HZ


def sound(text: str, format: str, speed: float = 1.0) -> bytes:
    """The tones of a text in one of `CONTENT_TYPES`' formats."""
    plain = wav(text, speed)
    return plain if format == "wav" else encoded(plain, format)


def encoded(plain: bytes, format: str, sample_rate_hz: int = SAMPLE_RATE_HZ) -> bytes:
    """A WAV in one of the formats of `CODECS`, at this rate (Opus has one of its own)."""
    import av

    container, codec = CODECS[format]
    file = io.BytesIO()
    rate_hz = 48_000 if format == "opus" else sample_rate_hz
    with av.open(io.BytesIO(plain), "r", format="wav") as source, av.open(file, "w", format=container) as target:
        track: Any = target.add_stream(codec, rate=rate_hz, layout="mono")
        for frame in source.decode(audio=0):
            frame.pts = None
            target.mux(track.encode(frame))
        target.mux(track.encode(None))
    return file.getvalue()


def mp4(seed: int, width: int = 64, height: int = 64, frames: int = FRAMES_PER_S) -> bytes:
    """An MP4 of this many pictures, whose colours the seed chooses and which change from one to the next."""
    import av

    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as target:
        track = target.add_stream("mpeg4", rate=FRAMES_PER_S)
        track.width, track.height, track.pix_fmt = width, height, "yuv420p"
        for count in range(frames):
            picture = av.VideoFrame(width, height, "rgb24")
            colour = bytes(((seed + 16 * count) % 256, (seed >> 8) % 256, (seed >> 16) % 256))
            plane = picture.planes[0]
            row = (colour * width).ljust(plane.line_size, b"\x00")
            plane.update(row * height)
            target.mux(track.encode(picture))
        target.mux(track.encode(None))
    return file.getvalue()


def _tone(code: int, samples: int) -> array[int]:
    period = _PERIOD - code % 48
    wave_form = array("h", (int(9000 * math.sin(2 * math.pi * place / period)) for place in range(period)))
    return (wave_form * (samples // period + 1))[:samples]


def _png_chunk(kind: bytes, data: bytes) -> bytes:
    body = kind + data
    return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))
