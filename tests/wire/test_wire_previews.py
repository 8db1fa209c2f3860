"""Takes in stretches, as they are decoded: live, late, and anew after a crash."""

from faults.fake_worker import take_bytes
from faults.lives import order

from punchin.clients.connect import connect


def joined(client, previews, seed):
    mine = [preview for preview in previews if preview.seed == seed]
    assert [preview.index for preview in mine] == list(range(len(mine)))
    frame = 0
    for preview in mine:
        assert preview.start_frame == frame
        frame += preview.frames
    return b"".join(client.get(preview.sha256) for preview in mine)


def test_stretches_live_and_late_are_the_take(client):
    asked = order("steps=2 pause=0.1 parts=4", seeds=(1, 2), frames=48_000)
    job = client.submit(asked)
    live = list(client.listen(job.id))
    with connect(name="late") as late:
        assert list(late.listen(job.id)) == live
        assert late.previews(job.id) == live
        for seed in asked.seeds:
            assert joined(late, live, seed) == take_bytes(asked, seed)
    assert len(live) == 8


def test_a_listener_that_comes_in_the_middle(client):
    asked = order("steps=1 parts=4 hang", frames=48_000)
    job = client.submit(asked)
    for number, _ in enumerate(client.listen(job.id)):
        if number == 1:
            break
    with connect(name="late") as late:
        assert [preview.index for _, preview in zip(range(4), late.listen(job.id), strict=False)] == [0, 1, 2, 3]
    client.cancel(job.id)


def test_after_a_crash_the_stretches_begin_again(client, tmp_path):
    asked = order(f"parts=3 die-once={tmp_path / 'died'}", frames=48_000)
    job = client.submit(asked)
    list(client.follow(job.id))
    assert joined(client, client.previews(job.id), 1) == take_bytes(asked, 1)
