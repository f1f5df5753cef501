"""``wiresum run``: registers a job, starts the training, keeps the lease alive, cleans up."""
