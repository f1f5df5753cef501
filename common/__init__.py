"""What every wiresum package may use: errors, version, addresses. Knows none of them."""
