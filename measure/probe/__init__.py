"""The links between the hosts of a job: latency and bandwidth, from what its ranks have timed."""
