"""Complete experiments: data, training, evaluation and pictures in one call."""
