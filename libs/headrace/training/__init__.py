"""Trains the adapters that give the default model eyes; needs the extra [train] (torch, scikit-learn)."""
