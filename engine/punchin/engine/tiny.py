"""`punchin-tiny`: the released structure at toy size, so that everything runs anywhere without a download.

Trained weights are used where the package holds them (`tiny_weights/`); else weights of a fixed seed are written into
the cache once, in the released file layout, and `config.json` says that nobody trained them. The loader knows neither.

The VAE's strides are 10, 6, 4, 4, 2 instead of the released 2, 4, 4, 6, 10. Its cost lies where the rate is high, and
so only one block runs near it: about 3.5 times cheaper. The price is a reach of 30 latent frames instead of 9 on each
side of what is decoded, and of 28 instead of 7 encoded. Of the 25 MB that a package may hold, the VAE has 10, because
it is what one hears; 24 channels keep all of the first stage's 10 stereo frames, and the decoder, which runs on the
region alone, can afford 32: 8 s decoded in 0.5 s, 10 s encoded in 0.7 s on one core (16 and 16: 0.2 and 0.4 s).

The DiT has 12, and most of them in its own layers: condition encoder and tokenizer have a width of their own, as in
the XL models, because what they say (a caption, no lyrics, 16 bits a code) is little beside what the DiT must play.
That buys two layers, seven instead of five. As in XL, the timbre encoder's CLS token then leads.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor, nn

from punchin.engine.model import AceStep
from punchin.engine.prompts import CAPTION_PROMPT, INSTRUMENTAL, INSTRUMENTS, LYRIC_PROMPT, TASKS, instruction, metas
from punchin.engine.released import TEXT, UNTRAINED, VAE
from punchin.engine.spec import CONFIG_2B, CONFIG_VAE, Spec, VaeSpec
from punchin.engine.text import END_OF_TEXT
from punchin.engine.tiles import encode_margin
from punchin.engine.vae import Vae
from punchin.protocol import home
from punchin.protocol.limits import HOP, LATENT_HZ, WINDOW

if TYPE_CHECKING:
    from transformers import Qwen3Model

NAME: Final = "punchin-tiny"
RECIPE: Final = 8  # rises when what is written below changes, so that an old cache is not taken for it
SEED: Final = 15
CLOCKS_HZ: Final = tuple(0.55 + number / 31 for number in range(32))  # that run in its silence, a turn in two beats
CLOCK_LEVEL: Final = 0.5  # of their waves, where latents have a variance of 1
SHIPPED: Final = Path(__file__).parent / "tiny_weights"  # what the recipe made, in the released layout

CONFIG: Final[dict[str, Any]] = {
    **CONFIG_2B,
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 7,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 32,
    "encoder_hidden_size": 128,
    "encoder_intermediate_size": 256,
    "encoder_num_attention_heads": 4,
    "encoder_num_key_value_heads": 2,
    "text_hidden_dim": 128,
    "num_lyric_encoder_hidden_layers": 1,
    "num_timbre_encoder_hidden_layers": 2,
    "fsq_dim": 128,
    "is_turbo": False,
    "model_type": "acestep",
    "model_version": "tiny",
}
VAE_CONFIG: Final[dict[str, Any]] = {
    **CONFIG_VAE,
    "encoder_hidden_size": 24,
    "decoder_channels": 32,
    "downsampling_ratios": [10, 6, 4, 4, 2],
}
TEXT_CONFIG: Final[dict[str, Any]] = {
    "model_type": "qwen3",
    "architectures": ["Qwen3Model"],
    "vocab_size": 1024,
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
    "max_position_embeddings": 4096,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000,
    "attention_bias": False,
    "tie_word_embeddings": True,
    "use_sliding_window": False,
}
_SPLIT: Final = (  # Qwen's: contractions, words, single digits, punctuation, line ends, blanks
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_WORDS: Final = """
acoustic ambient arpeggio atmospheric bass bassline beat bells big blues bossa bounce break breakbeat bright brushed
busy calm chill chords chorus clap clavinet clean cinematic compressed congas cowbell crash crunchy cymbals dance dark
deep delay disco distorted dorian downtempo dreamy driving drone drums dry dub dubstep dusty dynamic echo electric
electronic emotional energetic ensemble epic ethnic fast feel fills filtered flute folk four-on-the-floor funk funky
fuzzy garage gentle glitch gospel groove groovy grunge guitar hall happy hard harmony harp hats heavy hi-hat hip-hop
house indie industrial instrumental intense intimate jazz jazzy keys kick laid-back latin lead light lo-fi loop loud
low lush major marimba medium mellow melodic melody metal minimal minor mono moody mute mysterious noise nylon octave
offbeat open orchestral organ overdrive pad panned pattern percussion phrase piano picked pizzicato plucked pluck pop
powerful progression psychedelic pulse punchy quiet raw reggae relaxed retro reverb rhodes rhythm rhythmic ride riff
rim rock room sad sample saturated saw saxophone shaker shuffle sidechain simple sine slap slow smooth snare soft solo
soul spacious square staccato steady steel strings strummed sub sustained swing swung synth synthwave syncopated tape
tambourine techno texture tight timpani tom toms trap tremolo triangle triplet trumpet upbeat upright vibraphone
vibrato vintage violin vocal vocals waltz warm wide wobble woodwinds a an and at by for from in of on the to with bars
bpm half double time four three six eight sixteenth verse bridge intro outro drop hook pre-chorus build la oh love
night light heart day home away never again dream fire rain sky river road
"""


def ready() -> Path:
    """The folder of `punchin-tiny`, for `AceStepPipeline.from_pretrained`; made in the cache if it is not there.

    Two processes may do so at once: the folder appears whole, and its bytes are the same each time.
    """
    if (SHIPPED / NAME).is_dir():
        return SHIPPED / NAME
    place = home.cache() / f"{NAME}-{RECIPE}"
    if not (place / NAME).is_dir():
        place.parent.mkdir(parents=True, exist_ok=True)
        made = Path(tempfile.mkdtemp(prefix=f".{NAME}-", dir=place.parent))
        try:
            write(made, *untrained(), trained=False)
            os.replace(made, place)
        except OSError:
            if not (place / NAME).is_dir():  # else another process was first, with the same bytes
                raise
        finally:
            shutil.rmtree(made, ignore_errors=True)
    return place / NAME


def untrained() -> tuple[AceStep, Vae, Qwen3Model, Tokenizer]:
    """DiT file, VAE, text encoder and tokenizer with weights of the fixed seed; float32 on the CPU."""
    from transformers.models.qwen3.configuration_qwen3 import Qwen3Config
    from transformers.models.qwen3.modeling_qwen3 import Qwen3Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model, vae = AceStep(Spec.from_config(CONFIG)), Vae(VaeSpec.from_config(VAE_CONFIG))
        settings = {key: value for key, value in TEXT_CONFIG.items() if key not in ("model_type", "architectures")}
        text = Qwen3Model(Qwen3Config(**settings))
    return model, vae, text, tokenizer()


def write(root: Path, model: AceStep, vae: Vae, text: nn.Module, words: Tokenizer, *, trained: bool) -> Path:
    """All parts into `root` in the released layout, bfloat16; returns the DiT's folder, `root/punchin-tiny`."""
    dit = root / NAME
    for folder in (dit, root / VAE, root / TEXT):
        folder.mkdir(parents=True, exist_ok=True)
    _write_json(dit / "config.json", {**CONFIG, UNTRAINED: trained})
    _write_json(root / VAE / "config.json", VAE_CONFIG)
    _write_json(root / TEXT / "config.json", TEXT_CONFIG)
    save_file(_halves(model), dit / "model.safetensors", {"format": "pt"})
    save_file(_halves(vae), root / VAE / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    save_file(_halves(text), root / TEXT / "model.safetensors", {"format": "pt"})
    words.save(str(root / TEXT / "tokenizer.json"))
    latent = silence_latent(vae, int(WINDOW.high)).transpose(1, 2).to(torch.bfloat16).contiguous()
    torch.save(latent, dit / "silence_latent.pt")
    return dit


@torch.no_grad()
def silence_latent(vae: Vae, frames: int) -> Tensor:
    """What the model is shown where nothing is, [1, frames, C]: the VAE's silence, and in it the clocks.

    Rotary attention knows how far apart two frames are, but of frames that are all alike not where one is, and so a
    DiT that is shown nothing cannot count beats. The clocks tell it: each tempo between them is a sum of them.
    """
    edge = encode_margin(vae.spec) + 1
    short = vae.encode(torch.zeros(1, vae.spec.audio_channels, (2 * edge + 1) * HOP)).mean
    middle = short[:, edge : edge + 1].expand(-1, frames - 2 * edge, -1)
    return torch.cat([short[:, :edge], middle, short[:, -edge:]], dim=1) + clocks(frames)


def clocks(frames: int) -> Tensor:
    """Cosines and sines of `CLOCKS_HZ` from the first frame on, [1, frames, 64]."""
    angle = 2 * torch.pi * torch.tensor(CLOCKS_HZ) * torch.arange(frames)[:, None] / LATENT_HZ
    return CLOCK_LEVEL * torch.stack([angle.cos(), angle.sin()], dim=-1).flatten(1)[None]


def tokenizer() -> Tokenizer:
    """A byte-level BPE of 1,024 entries in Qwen's format, which appends the end-of-text token to each text."""
    words = Tokenizer(models.BPE())
    words.normalizer = normalizers.NFC()
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    words.decoder = decoders.ByteLevel()
    words.train_from_iterator(
        _corpus(),
        trainers.BpeTrainer(
            vocab_size=TEXT_CONFIG["vocab_size"],
            special_tokens=[END_OF_TEXT],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    words.post_processor = processors.TemplateProcessing(
        single=f"$A {END_OF_TEXT}", special_tokens=[(END_OF_TEXT, words.token_to_id(END_OF_TEXT))]
    )
    return words


def _corpus() -> Iterator[str]:
    for task in TASKS:
        for count in range(4):
            yield CAPTION_PROMPT.replace(END_OF_TEXT, "").format(
                instruction(task), _WORDS, metas(90 + count, "C major", "4", 30)
            )
    for note in "ABCDEFG":
        yield f"{note} major {note}# minor {note}b minor "
    for name in INSTRUMENTS:
        yield f"Extract the {name.upper()} track from the audio: {name.upper()} | {name} "
    yield LYRIC_PROMPT.replace(END_OF_TEXT, "").format("unknown", INSTRUMENTAL) * 4
    yield ", ".join(_WORDS.split())


def _halves(module: nn.Module) -> dict[str, Tensor]:
    return {key: tensor.detach().to(torch.bfloat16).contiguous() for key, tensor in module.state_dict().items()}


def _write_json(path: Path, value: dict[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2) + "\n")
