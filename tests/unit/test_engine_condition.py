"""The condition encoder against diffusers; and by hand what diffusers leaves out, the CLS token of XL."""

import dataclasses

import pytest
import torch
from acestep_peers import BLOCK_ARGUMENTS, SPEC, draw, stirred, taught
from diffusers.pipelines.ace_step.modeling_ace_step import AceStepConditionEncoder

from punchin.engine.condition import ConditionEncoder, TimbreEncoder, Tokens, pack

PLAIN = dataclasses.replace(SPEC.condition, timbre_cls=False)


@pytest.fixture(scope="module")
def ours():
    return stirred(ConditionEncoder(PLAIN), seed=2)


@pytest.fixture(scope="module")
def theirs(ours):
    model = AceStepConditionEncoder(
        **BLOCK_ARGUMENTS,
        text_hidden_dim=12,
        timbre_hidden_dim=8,
        num_lyric_encoder_hidden_layers=4,
        num_timbre_encoder_hidden_layers=3,
    )
    return taught(model, ours, absent=["null_condition_emb", "silence_latent"])


def tokens(batch, length, real=None, seed=0):
    count = torch.arange(length)
    real = torch.tensor([length] * batch if real is None else real)
    return Tokens(draw(batch, length, 12, seed=seed), count < real[:, None])


def both(ours, theirs, text, lyrics, clips, owners):
    got = ours(text, lyrics, clips, owners)
    want = theirs(text.states, text.valid.long(), lyrics.states, lyrics.valid.long(), clips, owners)
    return got, Tokens(want[0], want[1].bool())


@torch.no_grad()
def test_one_item_without_padding(ours, theirs):
    got, want = both(
        ours, theirs, tokens(1, 6), tokens(1, 23, seed=1), draw(1, 30, 8), torch.zeros(1, dtype=torch.long)
    )
    assert got.valid.all()
    assert got.states.shape == (1, 23 + 1 + 6, 48)
    torch.testing.assert_close(got.states, want.states, rtol=0, atol=1e-5)


@torch.no_grad()
def test_padded_items_and_several_references_in_any_order(ours, theirs):
    """Items have 2, 1 and 3 references, which arrive mixed. Lyrics are longer than the band."""
    owners = torch.tensor([2, 0, 2, 1, 0, 2])
    text, lyrics = tokens(3, 6, [6, 2, 4]), tokens(3, 23, [23, 3, 11], seed=1)
    got, want = both(ours, theirs, text, lyrics, draw(6, 30, 8), owners)
    assert torch.equal(got.valid, want.valid)
    assert got.valid.sum(1).tolist() == [6 + 2 + 23, 2 + 1 + 3, 4 + 3 + 11]
    torch.testing.assert_close(got.states[got.valid], want.states[want.valid], rtol=0, atol=1e-5)
    assert got.states.isfinite().all()


@torch.no_grad()
def test_padding_changes_nothing_but_the_end(ours):
    owner = torch.zeros(1, dtype=torch.long)
    clip = draw(1, 30, 8)
    bare = ours(tokens(1, 6), tokens(1, 11), clip, owner)
    padded = Tokens(torch.cat([tokens(1, 11).states, draw(1, 40, 12, seed=9)], dim=1), torch.arange(51)[None] < 11)
    got = ours(tokens(1, 6), padded, clip, owner)
    torch.testing.assert_close(got.states[:, : bare.states.shape[1]], bare.states, rtol=0, atol=1e-5)


@torch.no_grad()
def test_parts_made_apart_are_the_whole(ours):
    text, lyrics, clip = tokens(1, 6), tokens(1, 11, seed=1), draw(1, 30, 8)
    timbre = ours.timbre_encoder(clip, torch.zeros(1, dtype=torch.long))
    apart = ours.joined(ours.lyric_encoder(lyrics), timbre, text)
    assert torch.equal(apart.states, ours(text, lyrics, clip, torch.zeros(1, dtype=torch.long)).states)


@torch.no_grad()
def test_the_2b_models_do_not_use_the_cls_token_and_xl_does(ours):
    clip, owner = draw(1, 30, 8), torch.zeros(1, dtype=torch.long)
    for cls in (False, True):
        encoder = stirred(TimbreEncoder(dataclasses.replace(PLAIN, timbre_cls=cls)), seed=3)
        before = encoder(clip, owner).states
        encoder.special_token.data += 1.0
        assert torch.equal(encoder(clip, owner).states, before) is not cls


@torch.no_grad()
def test_the_cls_token_of_xl_is_what_diffusers_makes_of_it_put_there_by_hand(theirs):
    """diffusers never prepends it. So its own layers are run here on a sequence to which the test prepends it."""
    xl = stirred(TimbreEncoder(dataclasses.replace(PLAIN, timbre_cls=True)), seed=4)
    peer = taught(theirs.timbre_encoder, xl)
    clips = draw(2, 30, 8)

    class Prepended(torch.nn.Module):
        def __init__(self, linear):
            super().__init__()
            self.linear = linear

        def forward(self, x):
            y = self.linear(x)
            return torch.cat([peer.special_token.expand(len(y), 1, -1), y], dim=1)

    plain = peer.embed_tokens
    peer.embed_tokens = Prepended(plain)
    try:
        want, _ = peer(clips, torch.tensor([0, 1]))
    finally:
        peer.embed_tokens = plain
    torch.testing.assert_close(xl(clips, torch.tensor([0, 1])).states, want, rtol=0, atol=1e-5)


def test_packing_keeps_order_and_puts_padding_last():
    first = Tokens(torch.tensor([[[1.0], [0.0], [2.0]]]), torch.tensor([[True, False, True]]))
    second = Tokens(torch.tensor([[[3.0], [0.0]]]), torch.tensor([[True, False]]))
    packed = pack(first, second)
    assert packed.states.flatten().tolist() == [1, 2, 3, 0, 0]
    assert packed.valid.tolist() == [[True, True, True, False, False]]
