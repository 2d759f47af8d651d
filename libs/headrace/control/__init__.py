"""Power, air and heat: a plant of rows, servers and GPUs to be governed, and what governs single GPUs."""
