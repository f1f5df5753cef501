"""``wiresum bench advise``: what ``wiresum advise`` predicts, beside what is then measured."""
