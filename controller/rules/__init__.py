"""What callers may have: jobs, admission, joining, changes of leases, tenants, switches."""
