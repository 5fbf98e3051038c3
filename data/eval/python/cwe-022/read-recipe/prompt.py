import os

RECIPES = "recipes"


def read_recipe(name):
    """Text of a recipe in the folder of recipes, or None if there is none of that name."""
