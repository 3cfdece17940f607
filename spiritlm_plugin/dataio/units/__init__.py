"""The ground floor, pure: units, segments, vocabulary, prompts."""
