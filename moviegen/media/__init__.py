"""The only place that decodes or encodes pictures and sound. No torch here.

Untrusted files: `probe`, `read_clip`, `stream_clip`, `read_sound`, `read_image`, `copy_audio`, `check_pictures` work
in a sandboxed child process.
Files of our own shards: `decode_video`, `decode_audio`. Every failure is a `MediaError`: one line with the
file and the reason.
"""

from moviegen.media.base import (
    UNCOPYABLE,
    DecodedClip,
    Limits,
    MediaError,
    MediaInfo,
    atomic_path,
    check_readable,
    write_error,
)
from moviegen.media.reading import (
    decode_audio,
    decode_video,
    probe,
    read_clip,
    read_image,
    read_sound,
    resample_audio,
    stream_clip,
)
from moviegen.media.sound_writing import SoundWriter
from moviegen.media.vmaf import vmaf_frames, vmaf_missing
from moviegen.media.writing import (
    VideoWriter,
    check_pictures,
    clip_suffix,
    copy_audio,
    encode_flac,
    encode_video,
    through_jpeg,
    to_png_bytes,
    write_clip,
    write_flac,
    write_video,
)

__all__ = [
    "UNCOPYABLE",
    "DecodedClip",
    "Limits",
    "MediaError",
    "MediaInfo",
    "SoundWriter",
    "VideoWriter",
    "atomic_path",
    "check_pictures",
    "check_readable",
    "clip_suffix",
    "copy_audio",
    "decode_audio",
    "decode_video",
    "encode_flac",
    "encode_video",
    "probe",
    "read_clip",
    "read_image",
    "read_sound",
    "resample_audio",
    "stream_clip",
    "through_jpeg",
    "to_png_bytes",
    "vmaf_frames",
    "vmaf_missing",
    "write_clip",
    "write_error",
    "write_flac",
    "write_video",
]
