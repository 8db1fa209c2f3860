"""What client, daemon, engine worker and plugin host say to each other, and the limits of it.

Modules: `errors` (the tree), `limits` (each bound once), `order` (what is asked for and what comes back),
`models` (the table of models), `machine` (what there is to run them on), `messages` (client and daemon), `link`
(daemon and worker), `codec` (bytes).
"""
