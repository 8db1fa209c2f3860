"""Small random checkpoints in the released file layout, and the diffusers pipeline over the same weights."""

import json
import warnings

import torch
from safetensors.torch import save_file

from punchin.engine import tiny
from punchin.engine.model import AceStep
from punchin.engine.spec import CONFIG_2B, CONFIG_VAE, Spec, VaeSpec
from punchin.engine.vae import Vae

DIT = {
    **CONFIG_2B, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "text_hidden_dim": 24, "sliding_window": 16, "fsq_dim": 32,
    "num_lyric_encoder_hidden_layers": 2, "num_timbre_encoder_hidden_layers": 2,
    "num_attention_pooler_hidden_layers": 2,
}  # fmt: skip
VAE = {
    **CONFIG_VAE, "encoder_hidden_size": 4, "decoder_channels": 4, "channel_multiples": [1, 2, 2, 2, 2],
    "downsampling_ratios": [10, 6, 4, 4, 2],
}  # fmt: skip
TEXT = {
    **tiny.TEXT_CONFIG, "hidden_size": 24, "intermediate_size": 32, "num_attention_heads": 2,
    "num_key_value_heads": 1, "head_dim": 12,
}  # fmt: skip


def write(root, name="acestep-v15-turbo", seed=0, turbo=True, shards=1, **numbers):
    """A checkpoint of a few thousand parameters in float32; returns the DiT's folder."""
    from transformers import Qwen3Config, Qwen3Model

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model, vae = AceStep(Spec.from_config({**DIT, "is_turbo": turbo, **numbers})), Vae(VaeSpec.from_config(VAE))
        text = Qwen3Model(Qwen3Config(**{k: v for k, v in TEXT.items() if k not in ("model_type", "architectures")}))
        for module in (model, vae):
            for parameter in module.parameters():
                parameter.data += 0.05 * torch.randn_like(parameter)
        model.tokenizer.quantizer.project_in.weight.data *= 4  # else all codes are near the middle
        silence = 0.3 * torch.randn(1, 64, 900)
    dit = root / name
    for folder, config, module, stem in (
        (dit, {**DIT, "is_turbo": turbo, **numbers}, model, "model"),
        (root / "vae", VAE, vae, "diffusion_pytorch_model"),
        (root / "Qwen3-Embedding-0.6B", TEXT, text, "model"),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(config))
        tensors = {key: value.detach().contiguous() for key, value in module.state_dict().items()}
        save_shards(folder, tensors, stem, shards if folder == dit else 1)
    torch.save(silence, dit / "silence_latent.pt")
    tiny.tokenizer().save(str(root / "Qwen3-Embedding-0.6B" / "tokenizer.json"))
    return dit


def save_shards(folder, tensors, stem, count):
    if count == 1:
        save_file(tensors, folder / f"{stem}.safetensors")
        return
    keys, where = sorted(tensors), {}
    for number in range(count):
        name = f"{stem}-{number + 1:05}-of-{count:05}.safetensors"
        part = keys[number::count]
        save_file({key: tensors[key] for key in part}, folder / name)
        where |= dict.fromkeys(part, name)
    (folder / f"{stem}.safetensors.index.json").write_text(json.dumps({"weight_map": where}))


def diffusers_pipeline(dit):
    """diffusers' AceStepPipeline with the weights of the checkpoint at `dit`, its VAE encoding to the mean."""
    from diffusers import AutoencoderOobleck, FlowMatchEulerDiscreteScheduler
    from diffusers.models.transformers.ace_step_transformer import AceStepTransformer1DModel
    from diffusers.pipelines.ace_step import modeling_ace_step as parts
    from diffusers.pipelines.ace_step.pipeline_ace_step import AceStepPipeline
    from safetensors.torch import load_file
    from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

    config = json.loads((dit / "config.json").read_text())
    weights = load_file(dit / "model.safetensors")
    common = {
        name: config[name]
        for name in ("hidden_size", "intermediate_size", "num_attention_heads", "num_key_value_heads", "head_dim",
                     "sliding_window", "rope_theta", "rms_norm_eps")
    }  # fmt: skip

    def filled(module, prefix, extra=None):
        module.load_state_dict(renamed(weights, prefix) | (extra or {}), strict=True)
        return module.eval()

    silence = torch.load(dit / "silence_latent.pt", weights_only=True).transpose(1, 2).contiguous()
    encoder = parts.AceStepConditionEncoder(
        **common, text_hidden_dim=config["text_hidden_dim"], timbre_hidden_dim=64,
        num_lyric_encoder_hidden_layers=config["num_lyric_encoder_hidden_layers"],
        num_timbre_encoder_hidden_layers=config["num_timbre_encoder_hidden_layers"],
    )  # fmt: skip
    encoder.silence_latent = silence
    pool = config["num_attention_pooler_hidden_layers"]
    tokenizer = parts.AceStepAudioTokenizer(
        **common, fsq_dim=config["fsq_dim"], num_attention_pooler_hidden_layers=pool
    )
    detokenizer = parts.AceStepAudioTokenDetokenizer(**common, num_attention_pooler_hidden_layers=pool)
    transformer = AceStepTransformer1DModel(
        **common, num_hidden_layers=config["num_hidden_layers"], is_turbo=config["is_turbo"]
    )
    root = dit.parent
    vae = oobleck(AutoencoderOobleck, json.loads((root / "vae/config.json").read_text()))
    vae.load_state_dict(load_file(root / "vae/diffusion_pytorch_model.safetensors"))
    text_config = json.loads((root / "Qwen3-Embedding-0.6B/config.json").read_text())
    text = Qwen3Model(Qwen3Config(**{k: v for k, v in text_config.items() if k != "model_type"}))
    text.load_state_dict(load_file(root / "Qwen3-Embedding-0.6B/model.safetensors"))
    words = PreTrainedTokenizerFast(
        tokenizer_file=str(root / "Qwen3-Embedding-0.6B/tokenizer.json"), pad_token="<|endoftext|>"
    )
    null = {"null_condition_emb": weights["null_condition_emb"], "silence_latent": silence}
    pipeline = AceStepPipeline(
        vae=vae.eval(), text_encoder=text.eval(), tokenizer=words,
        transformer=filled(transformer, "decoder."), condition_encoder=filled(encoder, "encoder.", null),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
        audio_tokenizer=filled(tokenizer, "tokenizer."), audio_token_detokenizer=filled(detokenizer, "detokenizer."),
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def oobleck(kind, config):
    """diffusers' VAE. It takes the encoder's width for the number of its outputs too, which is right at 128 alone."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # the old weight_norm
        vae = kind(**config)
        width = config["encoder_hidden_size"] * config["channel_multiples"][-1]
        last = torch.nn.Conv1d(width, 2 * config["decoder_input_channels"], 3, padding=1)
        vae.encoder.conv2 = torch.nn.utils.weight_norm(last)
    return vae


def renamed(weights, prefix):
    """The weights below `prefix` under diffusers' names."""
    pairs = (
        ("proj_in.1.", "proj_in_conv."), ("proj_out.1.", "proj_out_conv."), (".q_proj.", ".to_q."),
        (".k_proj.", ".to_k."), (".v_proj.", ".to_v."), (".o_proj.", ".to_out.0."), (".q_norm.", ".norm_q."),
        (".k_norm.", ".norm_k."),
    )  # fmt: skip
    found = {}
    for key, value in weights.items():
        if key.startswith(prefix):
            name = key.removeprefix(prefix)
            for ours, theirs in pairs:
                name = name.replace(ours, theirs)
            found[name] = value
    return found
