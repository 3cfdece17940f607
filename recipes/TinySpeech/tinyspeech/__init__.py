"""TinySpeech: a small world, written by grammars, read by eSpeak."""

VERSION = 1
