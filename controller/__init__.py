"""wiresum."""
