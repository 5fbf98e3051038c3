    const struct item *item = find_item(name);
    return item == NULL ? -1 : item->price * pieces;
}
