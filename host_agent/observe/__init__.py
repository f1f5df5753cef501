"""Inside the ranks of a job that ``wiresum measure -- COMMAND`` runs: records some of its steps."""
