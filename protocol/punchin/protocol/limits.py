"""Each bound once: checked, sent in `welcome`, quoted by errors and by the docs."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

from punchin.protocol.errors import OverLimit

MODEL_HZ = 48_000  # the one rate the engine takes
LATENT_HZ = 25  # latent frames a second
HOP = MODEL_HZ // LATENT_HZ  # 1920 samples a latent frame

MAX_MESSAGE_BYTES = 64 * 1024  # a control message, before decoding
CHUNK_BYTES = 1024 * 1024  # a piece of a blob on the data socket
CREDIT_CHUNKS = 8  # pieces a peer may have under way
NAME_CHARS = 200
PROMPT_CHARS = 4_000
LYRICS_CHARS = 20_000
MAX_SEEDS = 16  # variations in one job
MAX_REGIONS = 32  # in one job, of all tracks; so many passages at most
MAX_REFERENCES = 4
MAX_LORAS = 8
MAX_DENOMINATOR = 255  # of a time signature: bars shorter than a tick would be without number
MAX_QUEUE = 512  # jobs waiting; one more is refused as busy
KEEP_ALIVE_S = 31_536_000  # a year; who wants more, wants no end
LEASE_S = 10  # after so long without a word from its holder, the device is the engine's again


@dataclass(frozen=True, slots=True)
class Limit:
    """An inclusive range with its unit: one value that is checked, sent, and spoken."""

    name: str
    low: float
    high: float
    unit: str

    def check(self, value: float, hint: str = "") -> None:
        """Raise OverLimit unless low <= value <= high. NaN is outside."""
        if not self.low <= value <= self.high:
            raise OverLimit(self, value, hint)


REGION = Limit("region length", 0.25, 600, "s")  # 600 s: the silence latent ends there
SESSION_FILE = Limit("audio file length", 0.25, 3600, "s")  # a bare file is held in memory, before and after
RESAMPLED_ITEM = Limit("length of an item that is resampled", 0, 7200, "s")  # whole, in memory
WINDOW = Limit("window length", 128, 15_000, "latent frames")  # 5.12 to 600 s
TEMPO = Limit("tempo", 30, 300, "bpm")  # what ACE-Step accepts as metadata
SESSION_TEMPO = Limit("tempo of a session", 10, 1000, "bpm")  # DAWs go from 20 to 999; the model is told half or double
PROMPT = Limit("prompt with tempo, key and length", 1, 256, "tokens")  # what the text encoder was trained to read
LYRICS = Limit("lyrics", 1, 2048, "tokens")
STRENGTH = Limit("strength", 0, 1, "")
STEPS = Limit("steps", 1, 200, "")
SHIFT = Limit("shift", 0.1, 20, "")
GUIDANCE = Limit("guidance", 0, 30, "")
REGIONS = Limit("number of regions", 1, MAX_REGIONS, "")  # in one job, of all tracks
VARIATIONS = Limit("variations", 1, MAX_SEEDS, "")
BARS = Limit("bars", 1, 1_000, "")  # of music made from a prompt alone; REGION bounds them too
ATTEMPTS = Limit("attempts", 1, 10, "")  # rolls of a take that misses a limit of the report
SEED = Limit("seed", 0, 2**32 - 1, "")
AUDIO = Limit("audio length", 1 / MODEL_HZ, 600, "s")  # of a blob; shorter than a window is padded by the engine
REFERENCE = Limit("reference length", 1, 600, "s")
REFERENCES = Limit("number of references", 0, MAX_REFERENCES, "")
CHANNELS = Limit("channels", 1, 2, "")
SESSION_RATE = Limit("sample rate", 8_000, 192_000, "Hz")
LORAS = Limit("number of LoRAs", 0, MAX_LORAS, "")
LORA_SIZE = Limit("size of a LoRA", 1, 2**31, "bytes")
LORA_STRENGTH = Limit("LoRA strength", -4, 4, "")

# What a landed take may measure; one over any of these is rolled again.
TAKE_LENGTH = Limit("length error", 0, 0, "samples")
TAKE_OUTSIDE = Limit("change outside the region", 0, 0, "of full scale")
TAKE_SEAM = Limit("seam", -inf, 3, "dB over the context's bar lines")
TAKE_TEMPO = Limit("tempo error", -0.1, 0.1, "%")
TAKE_PHASE = Limit("phase", -10, 10, "ms")
TAKE_LOUDNESS = Limit("loudness difference", -1, 1, "dB")
TAKE_PEAK = Limit("true peak over the ceiling", -inf, 0.5, "dB")  # the ceiling: -1 dBTP or the source's own
TAKE_CLIPPED = Limit("newly clipped samples", 0, 0, "")
