"""Pictures of the product as its users watch it."""
