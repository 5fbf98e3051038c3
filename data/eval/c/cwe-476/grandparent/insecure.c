    const struct folder *grandparent = folder->parent->parent;
    return grandparent->name;
}
