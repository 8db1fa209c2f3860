"""Small random ACE-Step models, ours and diffusers', that hold the same weights; shared by the parity tests."""

import torch

from punchin.engine.spec import Spec, VaeSpec
from punchin.engine.vae import ConvTransposed, NormedConv, Vae

SMALL = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "in_channels": 24,
    "audio_acoustic_hidden_dim": 8,
    "timbre_hidden_dim": 8,
    "text_hidden_dim": 12,
    "patch_size": 2,
    "sliding_window": 4,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "num_lyric_encoder_hidden_layers": 4,
    "num_timbre_encoder_hidden_layers": 3,
    "num_attention_pooler_hidden_layers": 2,
    "pool_window_size": 5,
    "fsq_dim": 48,
    "fsq_input_levels": [8, 8, 8, 5, 5, 5],
    "fsq_input_num_quantizers": 1,
    "encoder_hidden_size": 48,
    "encoder_intermediate_size": 80,
    "encoder_num_attention_heads": 4,
    "encoder_num_key_value_heads": 2,
    "is_turbo": True,
}
SMALL_VAE = {
    "encoder_hidden_size": 8,
    "decoder_channels": 8,
    "decoder_input_channels": 4,
    "audio_channels": 2,
    "downsampling_ratios": [2, 4, 4, 6, 10],
    "channel_multiples": [1, 2, 4, 8, 16],
    "sampling_rate": 48_000,
}
SPEC = Spec.from_config(SMALL)
VAE_SPEC = VaeSpec.from_config(SMALL_VAE)

BLOCK_ARGUMENTS = {
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "sliding_window": 4,
    "hidden_size": 48,
    "intermediate_size": 80,
}

# From the original's names to diffusers', as its converter does it.
RENAMED = {
    "proj_in.1.": "proj_in_conv.",
    "proj_out.1.": "proj_out_conv.",
    ".q_proj.": ".to_q.",
    ".k_proj.": ".to_k.",
    ".v_proj.": ".to_v.",
    ".o_proj.": ".to_out.0.",
    ".q_norm.": ".norm_q.",
    ".k_norm.": ".norm_k.",
}


def renamed(tensors):
    """The tensors under diffusers' names."""
    out = {}
    for key, tensor in tensors.items():
        for ours, theirs in RENAMED.items():
            key = key.replace(ours, theirs)
        out[key] = tensor
    return out


def stirred(module, seed):
    """The module with every parameter random, so that no zero bias or neutral norm hides a mistake."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        small = parameter.dim() < 2 or 1 in parameter.shape
        scale = 0.2 if small else parameter.shape[1:].numel() ** -0.5
        parameter.data = noise * scale + (1.0 if "norm" in name else 0.0)
    return module.eval()


def taught(theirs, ours, absent=()):
    """`theirs` with our weights; every key must fit, but for the buffers named in `absent`."""
    missing, unexpected = theirs.load_state_dict(renamed(ours.state_dict()), strict=False)
    assert set(missing) <= set(absent), missing
    assert not unexpected
    return theirs.eval()


def draw(*shape, seed=0):
    """Random normal numbers of a shape."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def sound_vae(seed=10, spec=VAE_SPEC):
    """A small random autoencoder through which signals keep their size: snake is chaos for large ones."""
    model = stirred(Vae(spec), seed=seed)
    for name, module in model.named_modules():
        if isinstance(module, NormedConv):
            length = (module.stride * module.weight_v.shape[1] / module.weight_v.shape[0]) ** 0.5
            length = length if isinstance(module, ConvTransposed) else 0.3 if name.endswith("conv2") else 1.0
            module.weight_g.data = length * (1 + 0.3 * module.weight_g.data.tanh())
    return model
