"""What a running mesh is put through on purpose, and what is made of it: overload, and clients that leave at once."""
