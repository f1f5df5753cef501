"""An alpha-beta model of a training step: what each remedy, link and switch would make of it."""
