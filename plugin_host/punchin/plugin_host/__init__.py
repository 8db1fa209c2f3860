"""Effects and plug-ins in a process of their own, because plug-ins crash."""
