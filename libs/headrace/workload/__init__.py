"""Workloads: real traces, fitted generators and scenarios, the same for the simulator and for load on a live mesh."""
