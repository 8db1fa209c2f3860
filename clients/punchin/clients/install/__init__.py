"""Punchin's scripts inside a DAW: put there, upgraded, checked and removed without touching what is not Punchin's.

Modules: `manifest` (files with their hashes: what is ours, what was edited), `reaper` (where REAPER keeps things).
"""
