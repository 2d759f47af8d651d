"""Simulated runs for people: digests, tables, one HTML page, and where the figures came from."""
