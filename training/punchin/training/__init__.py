"""Training of ACE-Step models, and the recipe of the bundled one. Run as `python -m punchin.training`."""
