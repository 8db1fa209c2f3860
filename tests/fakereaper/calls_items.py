"""Items and takes, as ReaScript reads and edits them."""

from __future__ import annotations

from fakereaper.model import Item, Take, new_guid
from fakereaper.text import fill_item, item_text


def value(host, holder, name):
    if name not in holder.values:
        host.breach(f"{type(holder).__name__} has no value {name}")
    return float(holder.values[name])


def count_items(script, project):
    return len(project.items())


def item_at(script, project, index):
    items = project.items()
    return items[index] if 0 <= index < len(items) else None


def item_value(script, item, name):
    if name == "I_CURTAKE":
        return float(item.active)
    return value(script.host, item, name)


def set_item_value(script, item, name, new):
    script.host.editing(item.track.project)
    value(script.host, item, name)
    item.values[name] = float(new)
    return True


def item_string(script, item, name, text, setting):
    if name == "GUID" and not setting:
        return True, item.guid
    if name.startswith("P_EXT:"):
        if setting:
            script.host.editing(item.track.project)
            item.ext[name] = text
        return name in item.ext, item.ext.get(name, "")
    return script.host.breach(f"item has no string {name}")


def take_value(script, take, name):
    return value(script.host, take, name)


def set_take_value(script, take, name, new):
    script.host.editing(take.item.track.project)
    value(script.host, take, name)
    take.values[name] = float(new)
    return True


def take_string(script, take, name, text, setting):
    if setting:
        script.host.editing(take.item.track.project)
    if name == "GUID" and not setting:
        return True, take.guid
    if name == "P_NAME":
        if setting:
            take.name = text
        return True, take.name
    if name.startswith("P_EXT:"):
        if setting:
            take.ext[name] = text
        return name in take.ext, take.ext.get(name, "")
    return script.host.breach(f"take has no string {name}")


def add_item(script, track):
    script.host.editing(track.project)
    item = Item(track)
    track.items.append(item)
    return item


def add_take(script, item):
    script.host.editing(item.track.project)
    take = Take(item)
    item.takes.append(take)
    return take


def set_active(script, take):
    script.host.editing(take.item.track.project)
    take.item.active = take.item.takes.index(take)


def active_take(script, item):
    return item.takes[item.active] if item.takes else None


def take_at(script, item, index):
    return item.takes[index] if 0 <= index < len(item.takes) else None


def take_by_guid(script, project, guid):
    return next((t for item in project.items() for t in item.takes if t.guid == guid), None)


def delete_item(script, track, item):
    script.host.editing(track.project)
    track.items.remove(item)
    item.alive = False
    for take in item.takes:
        take.alive = False
    return True


def split(script, item, position):
    """The left part keeps its GUID; each take of the right part starts later in its source. They overlap and fade as
    far as the preferences say."""
    script.host.editing(item.track.project)
    if not item.start_s < position < item.end_s:
        return None
    right = Item(item.track)
    right.values, right.active, right.selected = dict(item.values), item.active, item.selected
    past = position - item.start_s
    fade_s = sum(script.host.split_overlap_s) or -1.0  # splits fade also where they do not overlap
    over_s, before_s = script.host.split_overlap_s if script.host.crossfades_splits else (0.0, 0.0)
    begin_s = position - before_s
    right.values |= {"D_POSITION": begin_s, "D_LENGTH": item.end_s - begin_s, "D_FADEINLEN": 0.0}
    right.values["D_FADEINLEN_AUTO"] = item.values["D_FADEOUTLEN_AUTO"] = fade_s
    item.values |= {"D_LENGTH": past + over_s, "D_FADEOUTLEN": 0.0}
    past -= before_s
    for take in item.takes:
        copy = Take(right, take.source, take.name)
        copy.values, copy.ext, copy.guid = dict(take.values), dict(take.ext), new_guid()
        copy.values["D_STARTOFFS"] += past * take.values["D_PLAYRATE"]
        right.takes.append(copy)
    item.track.items.insert(item.track.items.index(item) + 1, right)
    return right


def select_item(script, item, selected):
    script.host.editing(item.track.project)
    item.selected = selected


def set_state(script, item, text, undo):
    script.host.editing(item.track.project)
    fill_item(item, text)
    return True


CALLS = {
    "GetItemStateChunk": lambda script, item, text, undo: (True, item_text(item)),
    "SetItemStateChunk": set_state,
    "CountMediaItems": count_items,
    "GetMediaItem": item_at,
    "IsMediaItemSelected": lambda script, item: item.selected,
    "SetMediaItemSelected": select_item,
    "GetMediaItemInfo_Value": item_value,
    "SetMediaItemInfo_Value": set_item_value,
    "GetSetMediaItemInfo_String": item_string,
    "GetMediaItemTakeInfo_Value": take_value,
    "SetMediaItemTakeInfo_Value": set_take_value,
    "GetSetMediaItemTakeInfo_String": take_string,
    "AddMediaItemToTrack": add_item,
    "AddTakeToMediaItem": add_take,
    "SetActiveTake": set_active,
    "GetActiveTake": active_take,
    "GetTake": take_at,
    "CountTakes": lambda script, item: len(item.takes),
    "GetTakeName": lambda script, take: take.name,
    "GetMediaItemTakeByGUID": take_by_guid,
    "GetMediaItem_Track": lambda script, item: item.track,
    "DeleteTrackMediaItem": delete_item,
    "SplitMediaItem": split,
    "TakeIsMIDI": lambda script, take: bool(take.source and take.source.type == "MIDI"),
    "GetTakeNumStretchMarkers": lambda script, take: take.stretch_markers,
    "TakeFX_GetCount": lambda script, take: len(take.fx),
    "TakeFX_GetEnabled": lambda script, take, index: take.fx[index],
    "CountTakeEnvelopes": lambda script, take: take.envelopes,
    "UpdateItemInProject": lambda script, item: None,
}
