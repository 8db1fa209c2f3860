"""Sessions, their time and their audio: documents, tempo, render, splice, measure. No model, no socket."""
