"""A demonstration that ends by itself: two hosts, two links, one tunnel, one link cut."""
