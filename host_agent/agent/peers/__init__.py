"""The link between the ranks of a job, beside the switch: notices ranks that die, leave or wait."""
