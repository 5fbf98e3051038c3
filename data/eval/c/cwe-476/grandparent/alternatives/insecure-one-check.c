    const struct folder *grandparent = folder->parent->parent;
    return grandparent == NULL ? "/" : grandparent->name;
}
