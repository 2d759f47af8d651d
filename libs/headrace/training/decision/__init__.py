"""Decision transformers for control: returns to go, observations and actions in, the next action out (needs torch)."""
