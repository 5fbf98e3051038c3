def photos_with_any_tag(db, tags):
    """Sorted file names of the photos that have at least one of the tags."""
    if not tags:
        return []
