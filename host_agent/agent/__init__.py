"""A worker in its job: joins, keeps the lease alive, changes it, and hears of the other ranks."""
