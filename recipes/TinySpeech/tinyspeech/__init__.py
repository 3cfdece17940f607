"""TinySpeech: a small world of English, written by a grammar, read by eSpeak."""

VERSION = 1
