"""A load in phases, and the service over time: a soak, or a picture of autoscaling."""
