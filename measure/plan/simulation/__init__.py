"""Discrete-event simulations (simpy): jobs that share uplinks, and one job chunk by chunk."""
