"""Everything that is data: units, segments, ids, audio, checkpoints."""
