"""Tokens: the secrets by which callers prove who they are.

A token is 256 random bits. It is told once, and only its SHA-256 is kept: whoever reads the store
learns no token, and since nobody can try 2**256 guesses, neither salt nor a slow hash would add
anything. Looking up a hash by equality tells nothing about the token by its timing, either.
"""

import hashlib
import secrets

ADMIN = "wsa_"
TENANT = "wst_"
JOB = "wsj_"
"""How the three kinds of token begin, so that one that has leaked is recognized."""


def new_token(kind: str) -> str:
    """A new token of a kind; tell it to its owner, and keep :func:`hashed` of it."""
    return kind + secrets.token_urlsafe(32)


def hashed(token: str) -> str:
    """The hash of a token, which is all that is kept: 64 hexadecimal digits."""
    return hashlib.sha256(token.encode()).hexdigest()
