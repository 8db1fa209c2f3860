"""From a key press to a take in the project, with a bridge that the test plays."""



def asked(desk):
    desk.remember_words()
    desk.press("Repaint selection (last preset)")
    desk.host.tick(30)
    return desk.request()["id"]


def test_a_take_lands_on_the_item_in_one_undo_step(desk):
    _, item = desk.simple()
    job, before = asked(desk), desk.project.dump()
    desk.say(job=job, kind="accepted", text="queued")
    desk.say(job=job, kind="progress", text="diffusing 3 of 8, about 4 s")
    desk.done(job)
    assert [take.name for take in item.takes] == ["keys.wav", "punchin repaint 1"]
    assert item.active == 1
    take = item.takes[1]
    assert take.source.path.endswith(f"take-{job}-1.wav")
    assert take.ext["P_EXT:punchin"] == '{"seed": 1}'
    assert (item.start_s, item.end_s) == (0.0, 8.0)
    assert desk.project.undo_log == ["punchin: Keys bars 2-2"] or desk.project.undo_log == ["punchin: Keys bar 2"]
    assert desk.open_jobs() == {}
    assert any("diffusing 3 of 8" in text for text in desk.host.help)
    desk.project.undo()
    assert desk.project.dump() == before
