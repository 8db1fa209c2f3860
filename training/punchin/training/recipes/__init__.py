"""Recipes: how the model in the box was made, from nothing but code."""
