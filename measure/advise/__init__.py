"""``wiresum advise``: stop here, change the software, or invest; with the evidence."""
