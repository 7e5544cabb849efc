"""Models whose weights become integers: made so in a child, held against the originals, refused beyond a tolerance."""
