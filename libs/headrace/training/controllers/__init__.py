"""Learnt thermal controllers: demonstrations on randomised plants, networks, their export (needs torch, peft, onnx)."""
