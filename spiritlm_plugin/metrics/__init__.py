"""Measures that SpeechBrain lacks."""
