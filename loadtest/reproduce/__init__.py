"""`headrace reproduce NAME`: a paper's comparison run again in the simulator, one file each, written up beside its
numbers."""
