"""Tempo and position from a DAW that sends MIDI clock."""
