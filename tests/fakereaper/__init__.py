"""A strict REAPER made of Python: it raises where the real one would shrug, so that scripts are held to the API."""
