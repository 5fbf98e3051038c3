    if (folder->parent == NULL || folder->parent->parent == NULL)
        return "/";
    return folder->parent->parent->name;
}
