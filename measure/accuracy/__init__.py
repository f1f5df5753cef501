"""`wiresum bench accuracy`: the loss of a training under each codec, without a network."""
