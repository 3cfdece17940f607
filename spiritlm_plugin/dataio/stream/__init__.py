"""The stream that a language model is trained on."""
