"""The small model that ships, and how a name or a folder is found."""
