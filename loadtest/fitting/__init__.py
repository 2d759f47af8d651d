"""Writes the cost profiles of headrace.profiles anew from public kernel tables: `python -m loadtest.fitting`."""
