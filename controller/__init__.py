"""The controller: tenants, jobs and leases, and the tables of every switch."""
