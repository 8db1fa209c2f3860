"""A LoRA as it is sent to the daemon: one file that means by itself what it meant where it lay."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from punchin.protocol import limits
from punchin.protocol.errors import Refused

PEFT_WEIGHTS, PEFT_SETTINGS = "adapter_model.safetensors", "adapter_config.json"
SETTINGS_KEY = "lora_adapter_metadata"  # diffusers keeps them under this key, in the file itself


def read(path: Path) -> bytes:
    """The bytes of a safetensors file, or of a PEFT folder, with the settings that PEFT keeps beside it put into it.

    Without them a LoRA's alpha would be lost on the way, and with it how strong it is. Raises Refused for what
    cannot be read, OverLimit for what is too large.
    """
    file = path / PEFT_WEIGHTS if path.is_dir() else path
    try:
        limits.LORA_SIZE.check(file.stat().st_size, f"give another file than {path}")  # before it fills the memory
        data = file.read_bytes()
        beside = file.with_name(PEFT_SETTINGS)
        settings = json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else None
    except OSError as error:
        hint = "name a .safetensors file, or a folder with adapter_model.safetensors"
        raise Refused(f"cannot read the LoRA {error.filename or path}: {error.strerror}", hint) from None
    except ValueError as error:
        raise Refused(f"cannot read the LoRA {path}: {PEFT_SETTINGS} is not JSON: {error}") from None
    return data if settings is None else _with_settings(data, settings)


def _with_settings(data: bytes, settings: Any) -> bytes:
    """The same tensors under a header that tells the settings; what is no safetensors file stays for the engine."""
    size = int.from_bytes(data[:8], "little")
    try:
        header: dict[str, Any] = json.loads(data[8 : 8 + size])
        header["__metadata__"] = {**header.get("__metadata__", {}), SETTINGS_KEY: json.dumps(settings)}
    except (ValueError, TypeError, AttributeError):
        return data
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks that tensors begin at a multiple of 8
    return len(text).to_bytes(8, "little") + text + data[8 + size :]
