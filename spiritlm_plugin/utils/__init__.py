"""What SpeechBrain's utils lack: recipes' command lines, seeds, processes."""
