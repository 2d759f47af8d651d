"""Pools for a traffic: what an instance carries within the SLO, how many are needed, and what separating them costs."""
