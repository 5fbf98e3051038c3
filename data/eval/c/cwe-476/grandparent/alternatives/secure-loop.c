    for (int level = 0; level < 2 && folder != NULL; level++)
        folder = folder->parent;
    return folder != NULL ? folder->name : "/";
}
