"""How well tracks follow persons, measured on sequences made of annotated images."""
