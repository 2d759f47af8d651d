"""Headrace: a mesh of stages that serves large multimodal models."""
