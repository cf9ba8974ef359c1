"""A project of one's own: the folder that ``raregrade init`` writes, moving it to another version or another place."""
