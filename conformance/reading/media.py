"""Media that a server sent, decoded for real: images, audio, video. Within caps, and raising only `MediaError`.

Decoders are chosen by the first bytes, from a short list: no decoder is let guess, since some of them would open
files or addresses that a playlist names. Pillow and PyAV are loaded on first use only.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

MAX_BYTES = 32 * 1024 * 1024
MAX_PIXELS = 32 * 1024 * 1024
MAX_DURATION_S = 600.0
MAX_SAMPLES = 64 * 1024 * 1024
"""Samples of all channels together that are decoded at most."""
MAX_VIDEO_PIXELS = 256 * 1024 * 1024
"""Pixels of all pictures together that are decoded; of a longer video the rest is only measured."""
MAX_PACKETS = 200_000

IMAGES = {
    "png": "PNG",
    "jpeg": "JPEG",
    "webp": "WEBP",
    "gif": "GIF",
    "bmp": "BMP",
    "tiff": "TIFF",
    "avif": "AVIF",
}
"""The image formats that are read, and Pillow's name for each."""
CONTAINERS = {"mp3": "mp3", "flac": "flac", "ogg": "ogg", "aac": "aac", "mp4": "mp4", "webm": "matroska", "wav": "wav"}
"""The formats of sound and film that are read, and the demuxer of each."""
MEDIA_TYPES = {
    "png": ("image/png",),
    "jpeg": ("image/jpeg", "image/jpg"),
    "webp": ("image/webp",),
    "gif": ("image/gif",),
    "bmp": ("image/bmp", "image/x-ms-bmp"),
    "tiff": ("image/tiff",),
    "avif": ("image/avif",),
    "wav": ("audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"),
    "mp3": ("audio/mpeg", "audio/mp3", "audio/mpeg3", "audio/x-mpeg"),
    "flac": ("audio/flac", "audio/x-flac"),
    "ogg": ("audio/ogg", "audio/opus", "audio/vorbis", "application/ogg", "video/ogg"),
    "aac": ("audio/aac", "audio/aacp", "audio/x-aac"),
    "mp4": ("video/mp4", "audio/mp4", "audio/m4a", "audio/x-m4a", "video/quicktime", "audio/aac"),
    "webm": ("video/webm", "audio/webm", "video/x-matroska", "audio/x-matroska"),
}
"""The media types that name each format; the first is the usual one."""
_THUMBNAIL = 16
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_UNKNOWN_FROM = 0x7FFF0000


class MediaError(Exception):
    """Why bytes are not the medium they should be, as a sentence."""


@dataclass(frozen=True, slots=True)
class Image:
    """A decoded image. `blank` says that all of it is one colour."""

    width: int
    height: int
    format: str
    blank: bool = False


@dataclass(frozen=True, slots=True)
class Audio:
    """Decoded sound. `silent` says that no sample differs from another."""

    duration_s: float
    sample_rate_hz: int
    channels: int
    format: str
    silent: bool = False


@dataclass(frozen=True, slots=True)
class Video:
    """A decoded film. `frames` counts its pictures."""

    width: int
    height: int
    duration_s: float
    frames: int
    format: str


def sniff(data: bytes) -> str | None:
    """The format that the first bytes show ("png", "wav", "mp4" and so on), or None."""
    if data[:4] == b"RIFF":
        return {b"WAVE": "wav", b"WEBP": "webp"}.get(data[8:12])
    for magic, name in (
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"\xff\xd8\xff", "jpeg"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"BM", "bmp"),
        (b"II*\x00", "tiff"),
        (b"MM\x00*", "tiff"),
        (b"fLaC", "flac"),
        (b"OggS", "ogg"),
        (b"ID3", "mp3"),
        (b"\x1a\x45\xdf\xa3", "webm"),
    ):
        if data.startswith(magic):
            return name
    if data[4:8] == b"ftyp":
        return "avif" if data[8:12] in (b"avif", b"avis") else "mp4"
    if len(data) > 1 and data[0] == 0xFF:
        if data[1] & 0xF6 == 0xF0:
            return "aac"
        if data[1] & 0xE0 == 0xE0 and data[1] & 0x06:
            return "mp3"
    return None


def fits(media_type: str, format: str) -> bool:
    """Whether a content type (without parameters, lower case) names this format."""
    return media_type in MEDIA_TYPES.get(format, ())


def image(data: bytes) -> Image:
    """The image in these bytes, decoded whole. Raises `MediaError`."""
    format = _format(data, tuple(IMAGES), "an image")
    import PIL.Image

    try:
        with PIL.Image.open(io.BytesIO(data), formats=[IMAGES[format]]) as checked:
            width, height = checked.size
            if width * height > MAX_PIXELS:
                raise MediaError(f"the image has {width} x {height} pixels; up to {MAX_PIXELS:,} are decoded.")
            checked.verify()
        with PIL.Image.open(io.BytesIO(data), formats=[IMAGES[format]]) as opened:
            opened.load()
            ranges: Any = opened.convert("RGB").getextrema()
    except MediaError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything for what is broken
        raise MediaError(f"the {format} image cannot be decoded: {_reason(error)}.") from None
    return Image(width, height, format, all(low == high for low, high in ranges))


def difference(one: bytes, other: bytes) -> float:
    """How far two images lie apart, from 0 (alike) to 1, by small copies of both. Raises `MediaError`."""
    import PIL.Image

    copies: list[bytes] = []
    for data in (one, other):
        with PIL.Image.open(io.BytesIO(data), formats=[IMAGES[image(data).format]]) as opened:
            copies.append(opened.convert("RGB").resize((_THUMBNAIL, _THUMBNAIL)).tobytes())
    apart: int = sum(abs(a - b) for a, b in zip(*copies, strict=True))
    return apart / (255 * len(copies[0]))


def audio(data: bytes) -> Audio:
    """The sound in these bytes, decoded whole. Raises `MediaError`."""
    format = _format(data, tuple(CONTAINERS), "audio")
    if format == "wav":
        plain = _plain_wav(data)
        if plain is not None:
            return plain
    try:
        return _decoded_audio(data, format)
    except MediaError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything for what is broken
        raise MediaError(f"the {format} audio cannot be decoded: {_reason(error)}.") from None


def video(data: bytes) -> Video:
    """The film in these bytes: its first part decoded, the rest measured. Raises `MediaError`."""
    format = _format(data, ("mp4", "webm", "ogg"), "a video")
    try:
        return _decoded_video(data, format)
    except MediaError:
        raise
    except Exception as error:  # noqa: BLE001 - decoders raise anything for what is broken
        raise MediaError(f"the {format} video cannot be decoded: {_reason(error)}.") from None


DECODERS: dict[str, Callable[[bytes], Image | Audio | Video]] = {"image": image, "audio": audio, "video": video}
"""How each kind of medium is decoded."""


def _format(data: bytes, known: tuple[str, ...], what: str) -> str:
    if not data:
        raise MediaError(f"there are no bytes where {what} should be.")
    if len(data) > MAX_BYTES:
        raise MediaError(f"there are {len(data):,} bytes; up to {MAX_BYTES:,} are decoded.")
    format = sniff(data)
    if format not in known:
        begins = data[:16].hex(" ")
        named = f"{format} data" if format else "of no known format"
        raise MediaError(f"the bytes are {named}, not {what} ({', '.join(known)}); they begin with {begins}.")
    return format


def _reason(error: BaseException) -> str:
    """What a decoder said, in one line and without a full stop."""
    said = str(getattr(error, "strerror", None) or error)
    return (" ".join(said.split())[:160] or type(error).__name__).rstrip(".")


# WAV


def _plain_wav(data: bytes) -> Audio | None:
    """Sound in a WAV of plain samples; None for one that holds another codec. Raises `MediaError`."""
    fmt = b""
    for kind, start, size in _chunks(data):
        if kind == b"fmt ":
            fmt = data[start : start + size]
        elif kind == b"data":
            return _samples(data, fmt, start, size)
    raise MediaError("the WAV has no data chunk, so it holds no sound.")


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 12
    while at + 8 <= len(data):
        kind, size = struct.unpack_from("<4sI", data, at)
        yield kind, at + 8, size
        at += 8 + size + size % 2


def _samples(data: bytes, fmt: bytes, start: int, size: int) -> Audio | None:
    if len(fmt) < 16:
        raise MediaError("the WAV has no whole fmt chunk before its data.")
    tag, channels, rate_hz, _, block, _ = struct.unpack_from("<HHIIHH", fmt)
    if tag == _EXTENSIBLE and len(fmt) >= 26:
        (tag,) = struct.unpack_from("<H", fmt, 24)
    if tag not in (_PCM, _FLOAT):
        return None
    if not channels or not rate_hz or not block:
        raise MediaError(f"the WAV says {channels} channels at {rate_hz} Hz in blocks of {block} bytes.")
    there = len(data) - start
    # Who streams a WAV cannot know its size, and writes one of these in its place.
    if 0 < size < _UNKNOWN_FROM and size > there:
        raise MediaError(f"the WAV announces {size:,} bytes of samples, and {there:,} came.")
    if not size or size >= _UNKNOWN_FROM:
        size = there
    blocks = size // block
    if not blocks:
        raise MediaError("the WAV holds no sample.")
    duration_s = blocks / rate_hz
    _within(duration_s, blocks * channels)
    sound = data[start : start + blocks * block]
    return Audio(duration_s, rate_hz, channels, "wav", sound == sound[:block] * blocks)


def _within(duration_s: float, samples: int) -> None:
    if duration_s > MAX_DURATION_S:
        raise MediaError(f"the audio is longer than {MAX_DURATION_S:g} s; no more is decoded.")
    if samples > MAX_SAMPLES:
        raise MediaError(f"the audio has more than {MAX_SAMPLES:,} samples; no more are decoded.")


# Everything else, by PyAV


def _decoded_audio(data: bytes, format: str) -> Audio:
    import av

    with av.open(io.BytesIO(data), mode="r", format=CONTAINERS[format]) as container:
        if not container.streams.audio:
            raise MediaError(f"the {format} data holds no audio track.")
        track = container.streams.audio[0]
        duration_s, samples, broken, whole = 0.0, 0, 0, 0
        rate_hz = channels = 0
        silent = True
        first: bytes | None = None
        for packet in _packets(container, track):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError:
                # Players skip a damaged packet, and the first ones of a cut MP3 always are.
                broken += 1
                continue
            for frame in frames:
                whole += 1
                rate_hz, channels = frame.sample_rate, len(frame.layout.channels)
                duration_s += frame.samples / frame.sample_rate
                samples += frame.samples * channels
                _within(duration_s, samples)
                if silent:
                    size = frame.samples * frame.format.bytes * (1 if frame.format.is_planar else channels)
                    for plane in frame.planes:
                        used = bytes(plane)[:size]
                        first = used[:8] if first is None else first
                        silent = silent and used.count(used[:1]) == len(used) and used[:8] == first
        if not whole or broken > whole:
            raise MediaError(f"the {format} audio has {whole} readable packets and {broken} broken ones.")
    return Audio(duration_s, rate_hz, channels, format, silent)


def _decoded_video(data: bytes, format: str) -> Video:
    import av

    with av.open(io.BytesIO(data), mode="r", format=CONTAINERS[format]) as container:
        if not container.streams.video:
            raise MediaError(f"the {format} data holds no video track.")
        track = container.streams.video[0]
        width, height = track.codec_context.width, track.codec_context.height
        if width * height > MAX_PIXELS:
            raise MediaError(f"the video has {width} x {height} pixels; up to {MAX_PIXELS:,} are decoded.")
        pixels, frames, decoded, end = 0, 0, 0, 0.0
        for packet in _packets(container, track):
            if packet.size:
                frames += 1
                if packet.pts is not None and packet.time_base is not None:
                    end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
            if pixels >= MAX_VIDEO_PIXELS:
                continue
            for picture in packet.decode():
                decoded += 1
                pixels += picture.width * picture.height
        if not decoded:
            raise MediaError(f"the {format} video has no picture that can be decoded.")
    return Video(width, height, end, frames, format)


def _packets(container: Any, track: Any) -> Iterator[Any]:
    for count, packet in enumerate(container.demux(track)):
        if count > MAX_PACKETS:
            raise MediaError(f"there are more than {MAX_PACKETS:,} packets; no more are decoded.")
        yield packet
