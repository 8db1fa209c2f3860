"""Sources, accessors and peaks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from fakereaper.model import Handle, Source


class Accessor(Handle):
    kind = "AudioAccessor"

    def __init__(self, take):
        super().__init__()
        self.take, self.was = take, state_of(take)


def state_of(take):
    """What the sound of a take accessor depends on."""
    return dict(take.values), take.item.values["D_LENGTH"], take.stretch_markers


def destroy_source(script, source):
    source.alive = False


def source_from_file(script, path):
    try:
        soundfile.info(path)
    except (soundfile.LibsndfileError, TypeError):
        return None
    return Source(path)


def set_source(script, take, source):
    script.host.editing(take.item.track.project)
    take.source = source
    return True


def take_accessor(script, take):
    script.open_accessors += 1
    return Accessor(take)


def destroy_accessor(script, accessor):
    accessor.alive = False
    script.open_accessors -= 1


def samples(script, accessor, rate_hz, channels, start_s, count, buffer):
    """The take's own samples before gain, fades and effects; time counts from the item's start."""
    take = accessor.take
    if count * channels > len(buffer.values):
        script.host.breach("GetAudioAccessorSamples: the buffer is too small")
    source = take.source
    section = source.section
    while source.parent is not None:
        source = source.parent
    audio, source_hz = soundfile.read(source.path, dtype="float32", always_2d=True)
    if section:
        offset, length, reverse = section
        audio = audio[round(offset * source_hz) : round((offset + length) * source_hz)]
        audio = audio[::-1] if reverse else audio
    at_s = take.values["D_STARTOFFS"] + (start_s + np.arange(count) / rate_hz) * take.values["D_PLAYRATE"]
    frames = np.floor(at_s * source_hz + 1e-6).astype(int)
    if take.item.values["B_LOOPSRC"]:
        frames %= max(len(audio), 1)
    inside = (
        (frames >= 0) & (frames < len(audio)) & (start_s + np.arange(count) / rate_hz < take.item.values["D_LENGTH"])
    )
    out = np.zeros((count, channels))
    picked = audio[np.clip(frames, 0, len(audio) - 1)]
    out[inside] = picked[inside][:, [min(c, picked.shape[1] - 1) for c in range(channels)]]
    buffer.values[: count * channels] = out.reshape(-1).tolist()
    return 1 if inside.any() else 0


def build_peaks(script, source, mode):
    """0 begins, 1 does a part and tells what remains, 2 must be the last call and come when nothing remains."""
    if mode == 0:
        source.peaks_left = 3
        return 1
    if mode == 1:
        source.peaks_left -= 1
        return source.peaks_left
    if source.peaks_left:
        script.host.breach("PCM_Source_BuildPeaks was finished before it was done")
    source.peaks_left = None
    return 0


def new_array(script, size):
    from fakereaper.host import ReaperArray

    return ReaperArray(script, size)


CALLS = {
    "PCM_Source_CreateFromFile": source_from_file,
    "SetMediaItemTake_Source": set_source,
    "GetMediaItemTake_Source": lambda script, take: take.source,
    "GetMediaSourceParent": lambda script, source: source.parent,
    "GetMediaSourceFileName": lambda script, source: source.path,
    "GetMediaSourceNumChannels": lambda script, source: source.channels,
    "PCM_Source_BuildPeaks": build_peaks,
    "CreateTakeAudioAccessor": take_accessor,
    "DestroyAudioAccessor": destroy_accessor,
    "AudioAccessorStateChanged": lambda script, accessor: state_of(accessor.take) != accessor.was,
    "PCM_Source_Destroy": destroy_source,
    "GetAudioAccessorSamples": samples,
    "new_array": new_array,
    "file_exists": lambda script, path: Path(path).is_file(),
}
