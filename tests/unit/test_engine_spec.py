"""A spec comes from the released config, and what does not fit is refused with both numbers."""

import pytest

from punchin.engine.spec import CONFIG_2B, CONFIG_VAE, CONFIG_XL, SPEC_2B, SPEC_XL, BadSpec, Spec, VaeSpec


def test_the_2b_encoders_have_the_dits_widths_and_no_cls():
    assert SPEC_2B.condition.block == SPEC_2B.dit.block
    assert not SPEC_2B.condition.timbre_cls
    assert SPEC_2B.tokenizer.codebook == 64_000


def test_xl_is_known_by_its_encoder_fields_and_uses_the_cls_token():
    assert (SPEC_XL.dit.block.width, SPEC_XL.condition.block.width, SPEC_XL.dit.condition_width) == (2560, 2048, 2048)
    assert SPEC_XL.condition.timbre_cls


def test_what_a_config_says_beyond_the_numbers_does_not_matter():
    said = {**CONFIG_2B, "architectures": ["AceStep"], "dtype": "bfloat16", "num_audio_decoder_hidden_layers": 24}
    said["layer_types"] = ["sliding_attention", "full_attention"] * 12
    said["model_version"] = "turbo"
    assert Spec.from_config(said).dit == SPEC_2B.dit
    assert Spec.from_config(said).version == "turbo"


@pytest.mark.parametrize(
    ("change", "numbers"),
    [
        ({"in_channels": 128}, ("128", "192")),
        ({"timbre_hidden_dim": 32}, ("32", "64")),
        ({"fsq_dim": 1024}, ("1024", "2048")),
        ({"num_key_value_heads": 5}, ("16", "5")),
        ({"head_dim": 127}, ("127",)),
        ({"hidden_size": None}, ("None",)),
        ({"num_hidden_layers": 0}, ("0",)),
        ({"num_hidden_layers": 100_000_000}, ("100000000", "1000")),  # whose skeleton alone fills a memory
        ({"fsq_input_num_quantizers": 2}, ("2", "1")),
        ({"attention_bias": True}, ("True", "False")),
        ({"layer_types": ["full_attention"] * 24}, ("layer_types",)),
        ({"layer_types": ["sliding_attention"]}, ("1", "24")),
        ({"encoder_hidden_size": 1024}, ("1024", "encoder_intermediate_size")),
    ],
)
def test_numbers_that_disagree_are_refused_by_name(change, numbers):
    with pytest.raises(BadSpec) as refused:
        Spec.from_config({**CONFIG_2B, **change})
    assert all(number in str(refused.value) for number in numbers)
    assert next(iter(change)) in str(refused.value) or "head" in str(refused.value)


def test_xl_refuses_a_tokenizer_of_the_dits_width():
    with pytest.raises(BadSpec, match="fsq_dim is 2560, but the encoders' width is 2048"):
        Spec.from_config({**CONFIG_XL, "fsq_dim": 2560})


def test_a_vae_of_odd_strides_is_refused():
    with pytest.raises(BadSpec, match="stride of 3"):
        VaeSpec.from_config({**CONFIG_VAE, "downsampling_ratios": [2, 4, 4, 3, 10]})
    with pytest.raises(BadSpec, match="4 strides but 5"):
        VaeSpec.from_config({**CONFIG_VAE, "downsampling_ratios": [2, 4, 4, 6]})
