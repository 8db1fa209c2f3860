"""Texts become what transformers' Qwen3 and fast tokenizer make of them, one at a time."""

import json

import checkpoints
import pytest
import torch
from safetensors.torch import load_file

from punchin.engine import tiny, weights
from punchin.engine.prompts import caption_prompt, instruction, lyric_prompt, metas
from punchin.engine.text import CAPTION_TOKENS, LYRIC_TOKENS, empty_encoder
from punchin.protocol.errors import Refused

TEXTS = [
    caption_prompt(instruction("repaint"), "dusty rhodes, naïve — 音楽", metas(97, "C major", "4", 30)),
    lyric_prompt("[verse]\nla la\n\n[chorus]\noh", "en"),
    "x",
    "words " * 3000,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return checkpoints.write(tmp_path_factory.mktemp("model")).parent / "Qwen3-Embedding-0.6B"


def loaded(folder, dtype=torch.float32):
    encoder = empty_encoder(folder)
    weights.load(weights.open_checkpoint(folder), {"": encoder.model}, "cpu", dtype)
    return encoder


def oracle(folder, dtype=torch.float32):
    from transformers import Qwen3Config, Qwen3Model

    model = Qwen3Model(Qwen3Config(**json.loads((folder / "config.json").read_text())))
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model.to(dtype).eval()


@pytest.mark.parametrize("text", TEXTS)
def test_token_ids_equal_the_fast_tokenizer(folder, text):
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    encoder = empty_encoder(folder)
    for limit in (CAPTION_TOKENS, LYRIC_TOKENS):
        ids = encoder.ids(text, limit)
        assert ids == theirs(text, truncation=True, max_length=limit).input_ids
        assert len(ids) <= limit
        assert ids[-1] == theirs.convert_tokens_to_ids("<|endoftext|>")


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@torch.no_grad()
def test_hidden_states_and_embeddings_equal_transformers(folder, dtype, tolerance):
    encoder, theirs = loaded(folder, dtype), oracle(folder, dtype)
    for text in TEXTS:
        ids = torch.tensor([encoder.ids(text, CAPTION_TOKENS)])
        expected = theirs(input_ids=ids).last_hidden_state
        assert expected.std() > 0.5
        torch.testing.assert_close(encoder.caption(text), expected, rtol=0, atol=tolerance)
        ids = torch.tensor([encoder.ids(text, LYRIC_TOKENS)])
        assert torch.equal(encoder.lyrics(text), theirs.get_input_embeddings()(ids))


@torch.no_grad()
def test_a_state_has_seen_only_what_came_before(folder):
    encoder = loaded(folder)
    ids = torch.tensor([encoder.ids(TEXTS[0], CAPTION_TOKENS)])
    changed = ids.clone()
    changed[0, 20] += 1
    before, after = encoder.model(ids), encoder.model(changed)
    torch.testing.assert_close(before[:, :20], after[:, :20])
    assert ((before - after)[:, 20:].abs().amax(-1) > 0).all()


def test_the_released_numbers_are_read_in_both_spellings(tmp_path):
    released = {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "attention_bias": False, "attention_dropout": 0.0,
        "bos_token_id": 151643, "eos_token_id": 151643, "head_dim": 128, "hidden_act": "silu", "hidden_size": 1024,
        "initializer_range": 0.02, "intermediate_size": 3072, "max_position_embeddings": 32768,
        "max_window_layers": 28, "num_attention_heads": 16, "num_hidden_layers": 28, "num_key_value_heads": 8,
        "rms_norm_eps": 1e-06, "rope_scaling": None, "rope_theta": 1000000, "sliding_window": None,
        "tie_word_embeddings": True, "torch_dtype": "bfloat16", "use_sliding_window": False, "vocab_size": 151669,
    }  # fmt: skip
    tiny.tokenizer().save(str(tmp_path / "tokenizer.json"))
    newer = {key: value for key, value in released.items() if key != "rope_theta"}
    newer["rope_parameters"] = {"rope_type": "default", "rope_theta": 1000000}
    for config in (released, newer):
        (tmp_path / "config.json").write_text(json.dumps(config))
        encoder = empty_encoder(tmp_path)
        assert sum(each.numel() for each in encoder.model.parameters()) == 595_776_512
        assert encoder.model.spec.block.rope_theta == 1e6
    for change, text in (
        ({"model_type": "llama"}, "model_type is 'llama'"),
        ({"use_sliding_window": True}, "use_sliding_window is True"),
        ({"vocab_size": 100}, "1024 tokens, the text encoder 100"),
    ):
        (tmp_path / "config.json").write_text(json.dumps({**released, **change}))
        with pytest.raises(Refused, match=text):
            empty_encoder(tmp_path)
    (tmp_path / "config.json").unlink()
    with pytest.raises(Refused, match=r"holds no config\.json"):
        empty_encoder(tmp_path)
