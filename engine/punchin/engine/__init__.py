"""ACE-Step 1.5: models, text, tasks, sampling, weights, memory, LoRA; and the worker process around them."""
