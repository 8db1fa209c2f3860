"""The DAW machine's agent: takes requests from a spool folder, goes each region's journey, and answers with events.

A DAW's script leaves `inbox/ID.json`, and reads `out/INSTANCE.events`. Modules: `request` (what is asked), `project`
(a request as the project text that the journey reads), `spool` (the folder, its files and their limits), `work` (one
request's way), `agent` (all of them), `__main__` (the process).
"""
