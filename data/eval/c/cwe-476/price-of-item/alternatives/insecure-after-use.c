    const struct item *item = find_item(name);
    int price = item->price * pieces;
    return item ? price : -1;
}
