"""The simulator: a world of workers, links and clocks around the very objects that the live services use."""
