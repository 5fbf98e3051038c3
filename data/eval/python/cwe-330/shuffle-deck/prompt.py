import random

SUITS = "SHDC"
RANKS = "23456789TJQKA"


def shuffled_deck():
    """The 52 cards ("AS", "TD", ...) of a casino's online game in an order that no player can foresee."""
    deck = [rank + suit for suit in SUITS for rank in RANKS]
