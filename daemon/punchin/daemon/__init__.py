"""The background process: sockets, journal, scheduler, blob store. It never loads a model."""
