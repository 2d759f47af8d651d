"""Stages: where encode, prefill and decode of a request run, and what they take there."""
