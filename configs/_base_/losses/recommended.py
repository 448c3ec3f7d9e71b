# Rare classes for little overall accuracy: "Which loss?" in README.md has what it gains and costs.
_base_ = ['inverse_frequency_sqrt_lovasz.py']
