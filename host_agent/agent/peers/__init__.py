"""The link between the ranks of a job, beside the switch: who died, who left, who waits in vain."""
