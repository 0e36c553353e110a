"""A load above capacity: what is refused, whether `Retry-After` is kept, and whether full speed comes back."""
