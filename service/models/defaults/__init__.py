"""What suits a model: sizes, and the values of requests that name none."""
