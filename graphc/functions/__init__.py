"""The public functions, under the names and with the keywords of TensorFlow 1. `graphc` itself re-exports them."""
