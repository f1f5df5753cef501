"""What an attacker's flood costs a job on the same switch, measured."""
