    return find_item(name)->price * pieces;
}
